--- Writes one line of the audit of a namespace.
--- USES     open
--- MAY_WRITE audit: about the last 100,000 entries, trimmed as it grows
local AUDIT_MAX = 100000
local function audit(namespace, actor, action, object, outcome, request_id)
  return call('XADD', k_audit .. namespace, 'MAXLEN', '~', AUDIT_MAX, '*',
    'actor', actor, 'action', action, 'object', object, 'outcome', outcome, 'request_id', request_id)
end
