"""The page at `/`: signs a person in and shows the figures of the summary, live. One file, nothing from elsewhere.

Its style and script are allowed by their hashes, so that no other script runs on this origin, whatever a job is called.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final

__all__ = ["CONTENT_SECURITY_POLICY", "PAGE"]

_STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 56rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1rem; margin: 1.5rem 0 .5rem }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .75rem; margin: 0 }
dl div { border: 1px solid color-mix(in srgb, currentColor 25%, transparent); border-radius: .5rem }
dl div { padding: .6rem .8rem }
dt { font-size: .8rem; opacity: .75 } dd { margin: 0; font-size: 1.6rem; font-variant-numeric: tabular-nums }
#said { min-height: 1.5em } nav { display: flex; gap: 1rem; align-items: center }
button { font: inherit }
[hidden] { display: none }
"""

_SCRIPT: Final = """
'use strict';
const at = id => document.getElementById(id);
const say = text => { at('said').textContent = text; };
const post = (path, body, headers = {}) => fetch(path, {
  method: 'POST', credentials: 'same-origin',
  headers: {'content-type': 'application/json', ...headers}, body: JSON.stringify(body),
});
let csrf = null;
let timer = 0;

function ask(text) {
  clearTimeout(timer);
  at('figures').hidden = at('leave').hidden = true;
  at('enter').hidden = false;
  say(text);
}

async function show() {
  clearTimeout(timer);
  try {
    const answer = await fetch('/api/dashboard/summary', {credentials: 'same-origin'});
    if (answer.status === 401) return ask('Sign in to see the figures.');
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.detail || body.title);
    for (const place of document.querySelectorAll('dd')) {
      const value = body[place.dataset.figure];
      place.textContent = value === null || value === undefined ? '\\u2013' : Number(value).toLocaleString();
    }
    at('figures').hidden = at('leave').hidden = false;
    at('enter').hidden = true;
    say('As of ' + new Date().toLocaleTimeString());
  } catch (problem) {
    say('No answer: ' + problem.message);
  }
  if (!document.hidden) timer = setTimeout(show, 5000);
}

async function begin() {
  const asked = new URLSearchParams(location.search);
  const login = new URLSearchParams(location.hash.slice(1)).get('login_token');
  const body = login ? {login_token: login}
    : asked.has('code') && asked.has('state') ? {code: asked.get('code'), state: asked.get('state')} : null;
  if (location.hash || location.search) history.replaceState(null, '', '/');
  if (body) {
    const answer = await post('/auth/session', body);
    if (!answer.ok) return ask('That did not sign you in: a link works once, and not for long.');
  } else if (asked.has('error')) {
    return ask('The provider did not sign you in.');
  }
  const answer = await post('/auth/validate', {});
  const session = answer.ok ? await answer.json() : {valid: false};
  if (!session.valid) return ask('Sign in to see the figures.');
  csrf = session.csrf_token;
  await show();
}

at('out').addEventListener('click', async () => {
  await post('/auth/logout', {}, {'x-csrf-token': csrf});
  ask('Signed out.');
});
document.addEventListener('visibilitychange', () => {
  if (!document.hidden && !at('figures').hidden) show();
});
begin().catch(problem => ask('No answer: ' + problem.message));
"""


def _figures() -> str:
    groups = {
        "Jobs": {
            "jobs_queued": "queued",
            "jobs_running": "running",
            "jobs_completed": "completed",
            "jobs_failed": "failed",
            "total_jobs": "all",
        },
        "Agents": {"agents_healthy": "healthy", "agents_total": "all"},
        "Deployments": {
            "deployments_staging": "staging",
            "deployments_active": "active",
            "deployments_live": "live",
            "deployments_failed": "failed",
            "total_deployments": "all",
        },
    }
    return "".join(
        f"<h2>{title}</h2><dl>"
        + "".join(f'<div><dt>{word}</dt><dd data-figure="{name}"></dd></div>' for name, word in figures.items())
        + "</dl>"
        for title, figures in groups.items()
    )


PAGE: Final = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1"><title>hybridq</title>'
    f'<link rel="icon" href="data:,"><style>{_STYLE}</style></head><body><h1>hybridq</h1>'
    '<nav><span id="enter" hidden><a href="/auth/login">Sign in</a></span>'
    '<span id="leave" hidden><button id="out" type="button">Sign out</button></span>'
    '<a href="/api/docs">API</a></nav><p id="said" role="status">…</p>'
    f'<main id="figures" hidden>{_figures()}</main><script>{_SCRIPT}</script></body></html>\n'
).encode()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


CONTENT_SECURITY_POLICY: Final = (
    f"default-src 'none'; script-src {_hash(_SCRIPT)}; style-src {_hash(_STYLE)}; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
