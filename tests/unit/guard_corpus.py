"""Secrets of known shapes, and harmless strings that look a little like them.

No secret here was ever one: bodies come from a seeded generator when the module is loaded, and prefixes are put
together from pieces, so that scanners of repositories have nothing to report.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import string
import uuid
import zlib
from dataclasses import dataclass

_rng = random.Random(20250301)
BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
URL64 = string.ascii_letters + string.digits + "-_"
STD64 = string.ascii_letters + string.digits + "+/"
HEX = "0123456789abcdef"
BASE36 = string.digits + string.ascii_lowercase
UPPER36 = string.digits + string.ascii_uppercase


def chars(alphabet: str, count: int) -> str:
    """Of an alphabet; the ends are letters or digits, as a dash at the end reads as punctuation."""
    ends = [char for char in alphabet if char.isalnum()]
    middle = "".join(_rng.choice(alphabet) for _ in range(count - 2))
    return _rng.choice(ends) + middle + _rng.choice(ends)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def checksummed(body: str) -> str:
    """The body and its CRC-32 in base 62, six digits."""
    rest, digits = zlib.crc32(body.encode()), ""
    for _ in range(6):
        rest, digit = divmod(rest, 62)
        digits = BASE62[digit] + digits
    return body + digits


def jwt(header: dict[str, str], parts: int = 3) -> str:
    payload = json.dumps({"sub": "repo:acme/app", "aud": "hybridq"}).encode()
    head = json.dumps(header, separators=(",", ":")).encode()
    signature = _rng.randbytes(32)
    return ".".join([url64(head), url64(payload), url64(signature), url64(signature), url64(signature)][:parts])


def block(kind: str, line_break: str = "\n", dashes: str = "-" * 5, size: int = 600, end: bool = True) -> str:
    text = b64(b"\x30\x82" + _rng.randbytes(size))
    lines = [text[i : i + 64] for i in range(0, len(text), 64)]
    last = [f"{dashes}END {kind}{dashes}"] if end else []
    return line_break.join([f"{dashes}BEGIN {kind}{dashes}", *lines, *last])


@dataclass(frozen=True)
class Secret:
    """`text` holds `value`, which the rule finds; nothing of `value` may stay."""

    rule: str
    name: str
    value: str
    text: str

    @property
    def alone(self) -> bool:
        """It is found wherever it stands, without a name before it."""
        return self.text == self.value


def _bare(rule: str, value: str, name: str = "") -> Secret:
    return Secret(rule, name or f"{rule}-{value[:4]}", value, value)


def _inside(rule: str, name: str, before: str, value: str, after: str = "") -> Secret:
    return Secret(rule, name, value, before + value + after)


def _secrets() -> list[Secret]:
    gh, gl, key = "gh", "gl", "KEY"
    private = "PRIVATE " + key
    hq = [_bare("hybridq-token", f"hq{kind}_{chars(BASE62, 61)}", f"hybridq-{kind}") for kind in "kransn"[:5]]
    github = [
        _bare("github-token", f"{gh}{kind}_" + checksummed(chars(BASE62, 30)), f"github-{kind}") for kind in "pousr"
    ]
    gitlab = [
        _bare("gitlab-token", f"{gl}{kind}-{chars(URL64, size)}", f"gitlab-{kind}")
        for kind, size in (("pat", 20), ("rt", 20), ("dt", 20), ("ptt", 40), ("agent", 50), ("cbt", 24), ("ft", 20))
    ]
    slack = [
        _bare("slack-token", f"xox{kind}-{chars(string.digits, 12)}-{chars(string.digits, 12)}-{chars(BASE62, 24)}")
        for kind in "abprs"
    ]
    stripe = [_bare("stripe-key", f"{kind}_live_{chars(BASE62, 24)}") for kind in ("sk", "rk")]
    blocks = [
        _bare("private-key-pem", block(kind), f"pem-{kind}")
        for kind in (
            private,
            "RSA " + private,
            "EC " + private,
            "DSA " + private,
            "ENCRYPTED " + private,
            "OPENSSH " + private,
            "PGP " + private + " BLOCK",
        )
    ]
    account = json.dumps({"type": "service_account", "private_key": block(private) + "\n", "client_id": "1183"})
    headed = block("RSA " + private).replace(
        "-----\n", "-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,0A1B2C3D4E5F60718293A4B5C6D7E8F9\n\n", 1
    )
    putty = "\n".join([chars(STD64, 64), chars(STD64, 64), chars(STD64, 30) + "=="])
    fine_body = f"{chars(BASE62, 22)}_{chars(BASE62, 59)}"
    user = b64(b"deploy:" + chars(BASE62, 20).encode())
    discord = url64(b"893048712345678901") + "." + chars(URL64, 6) + "." + chars(URL64, 38)
    sas = f"sv=2024-11-04&se=2025-12-31T00%3A00%3A00Z&sr=c&sp=rl&sig={chars(BASE62, 20)}%2B{chars(BASE62, 22)}%3D"
    signature = sas.rsplit("sig=", 1)[1]
    return [
        *hq,
        *github,
        _bare("github-token", f"{gh}p_{chars(BASE62, 36)}", "github-other-checksum"),
        _bare("github-token", "github_" + "pat_" + fine_body, "github-fine-grained"),
        *gitlab,
        _bare("gitlab-token", f"{gl}pat-{chars(URL64, 27)}.01.{chars(BASE36, 9)}", "gitlab-routable"),
        _bare("aws-access-key-id", "AK" + "IA" + chars(UPPER36, 16)),
        _bare("aws-access-key-id", "AS" + "IA" + chars(UPPER36, 16)),
        _inside("aws-secret-access-key", "aws-ini", "aws_secret_access_key = ", chars(STD64, 40)),
        _inside("aws-secret-access-key", "aws-env", "export AWS_SECRET_ACCESS_KEY='", chars(STD64, 40), "'"),
        _inside("aws-secret-access-key", "aws-json", '{"SecretAccessKey": "', chars(STD64, 40), '"}'),
        _bare("google-api-key", "AI" + "za" + chars(URL64, 35)),
        _bare("google-oauth-token", "ya" + "29." + chars(URL64, 80)),
        _bare("google-oauth-secret", "GOC" + "SPX-" + chars(URL64, 28)),
        _inside(
            "private-key-pem",
            "gcp-account",
            "",
            account[len('{"type": "service_account", "private_key": "') : account.index('\\n", "client')],
            "",
        ),
        _inside(
            "azure-storage-key",
            "azure-connection",
            "DefaultEndpointsProtocol=https;AccountName=acme;AccountKey=",
            chars(STD64, 86) + "==",
            ";EndpointSuffix=core.windows.net",
        ),
        _inside("azure-storage-key", "azure-bus", "SharedAccessKeyName=Root;SharedAccessKey=", chars(STD64, 43) + "="),
        Secret("azure-sas", "azure-sas", signature, f"https://acme.blob.core.windows.net/logs?{sas}"),
        _bare("azure-client-secret", chars(BASE62, 3) + "8Q~" + chars(URL64, 34)),
        *slack,
        _inside(
            "slack-webhook",
            "slack-webhook",
            "https://hooks.slack.com/",
            f"services/T{chars(UPPER36, 9)}/B{chars(UPPER36, 9)}/{chars(BASE62, 24)}",
        ),
        *stripe,
        _bare("stripe-webhook-secret", "wh" + "sec_" + chars(BASE62, 32)),
        _bare("twilio-api-key", "S" + "K" + chars(HEX, 32)),
        _inside("twilio-auth-token", "twilio-env", "TWILIO_AUTH_TOKEN=", chars(HEX, 32)),
        _bare("sendgrid-key", f"S{'G'}.{chars(URL64, 22)}.{chars(URL64, 43)}"),
        _bare("npm-token", "np" + "m_" + checksummed(chars(BASE62, 30))),
        _bare("pypi-token", "py" + "pi-AgEIcHlwaS5vcmc" + chars(URL64, 120)),
        _bare("docker-token", "dc" + "kr_pat_" + chars(URL64, 27)),
        _bare("digitalocean-token", "do" + "p_v1_" + chars(HEX, 64)),
        _bare("vault-token", "hv" + "s." + chars(URL64, 95), "vault-service"),
        _bare("vault-token", "hv" + "b." + chars(URL64, 140), "vault-batch"),
        _bare("vault-token", "s" + "." + chars(BASE62, 24), "vault-old"),
        _bare("terraform-cloud-token", f"{chars(BASE62, 14)}.atlas{'v1'}.{chars(URL64, 67)}"),
        _bare("anthropic-key", "sk-" + "ant-api03-" + chars(URL64, 93) + "AA"),
        _bare("openai-key", "sk-" + "proj-" + chars(URL64, 120), "openai-project"),
        _bare("openai-key", "sk-" + chars(BASE62, 20) + "T3Blbk" + "FJ" + chars(BASE62, 20), "openai-old"),
        _bare("huggingface-token", "h" + "f_" + chars(string.ascii_letters, 34)),
        _bare("databricks-token", "da" + "pi" + chars(HEX, 32)),
        _inside("heroku-api-key", "heroku-env", "HEROKU_API_KEY=", str(uuid.UUID(bytes=_rng.randbytes(16), version=4))),
        _bare("heroku-api-key", "HR" + "KU-AA" + chars(URL64, 58), "heroku-new"),
        _bare("netlify-token", "nf" + "p_" + chars(BASE62, 36)),
        _bare("telegram-token", f"{chars(string.digits, 10)}:A{'A'}{chars(URL64, 33)}"),
        _bare("discord-token", discord),
        _inside(
            "discord-webhook",
            "discord-webhook",
            "https://discord.com/api/webhooks/893048712345678901/",
            chars(URL64, 68),
        ),
        _bare("shopify-token", "sh" + "pat_" + chars(HEX, 32)),
        _bare("linear-key", "li" + "n_api_" + chars(BASE62, 40)),
        _bare("notion-token", "nt" + "n_" + chars(string.digits, 11) + chars(BASE62, 35), "notion-new"),
        _bare("notion-token", "secr" + "et_" + chars(BASE62, 43), "notion-old"),
        _inside("datadog-key", "datadog-env", "DD_API_KEY=", chars(HEX, 32)),
        _inside("datadog-key", "datadog-yaml", "datadog_app_key: ", chars(HEX, 40)),
        *blocks,
        _bare("private-key-pem", block(private, "\\n"), "pem-escaped"),
        _bare("private-key-pem", block(private, "\r\n"), "pem-crlf"),
        _bare("private-key-pem", block(private, ""), "pem-one-line"),
        _bare("private-key-pem", block(private, end=False), "pem-cut-off"),
        _bare("private-key-pem", headed, "pem-with-headers"),
        _inside(
            "putty-private-key",
            "putty",
            "PuTTY-User-Key-File-3: ssh-ed25519\n",
            f"Private-Lines: 3\n{putty}",
            "\n",
        ),
        _bare("age-secret-key", "AGE-SECRET-" + "KEY-1" + chars("QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", 58)),
        _bare("jwt", jwt({"alg": "RS256", "kid": "key-1", "typ": "JWT"}), "jwt-signed"),
        _bare("jwt", jwt({"alg": "RSA-OAEP", "enc": "A256GCM"}, parts=5), "jwe"),
        _bare("jwt", jwt({"alg": "none"}, parts=2) + ".", "jwt-unsigned"),
        _inside("url-password", "url-postgres", "postgres://app:", chars(BASE62, 16), "@db.internal:5432/app"),
        _inside("url-password", "url-no-user", "redis://:", "hunter2", "@cache:6379/0"),
        _inside("bearer-token", "header-bearer", "Authorization: Bearer ", chars(BASE62, 40)),
        _inside("basic-auth", "header-basic", "authorization: Basic ", user),
        _inside(
            "bearer-token", "curl", "curl -H 'Authorization: Bearer ", chars(URL64, 43), "' https://api.internal/v1"
        ),
        _inside("assigned-secret", "password", "password=", chars(BASE62, 20)),
        _inside("assigned-secret", "chosen", "DB_PASSWORD: ", "Tr0ub4dor&3x"[:6] + "dor!3x"),
        _inside("assigned-secret", "secret-yaml", "client_secret: '", chars(BASE62, 32), "'"),
        _inside("assigned-secret", "token-query", "https://hooks.internal/run?token=", chars(BASE36, 32), "&ref=main"),
        _inside("assigned-secret", "escaped-json", '{\\"api_key\\": \\"', chars(BASE62, 32), '\\"}'),
        _inside("assigned-secret", "flag", "deploy --auth-token ", chars(BASE62, 30), " --verbose"),
        _inside(
            "npmrc-auth",
            "npmrc",
            "//registry.npmjs.org/:_authToken=",
            str(uuid.UUID(bytes=_rng.randbytes(16), version=4)),
        ),
        _inside(
            "netrc-password",
            "netrc",
            "machine api.heroku.com\n  login dev@acme.example\n  password ",
            chars(BASE36, 12),
        ),
        _inside("assigned-secret", "kubeconfig", "users:\n- name: ci\n  user:\n    token: ", chars(BASE62, 64)),
        _inside("kubeconfig-client-key", "kubeconfig-key", "client-key-data: ", b64(_rng.randbytes(240))),
        _bare("rubygems-token", "ruby" + "gems_" + chars(HEX, 48)),
        _bare("grafana-token", "gl" + "sa_" + chars(BASE62, 32) + "_" + chars(HEX, 8)),
        _bare("new-relic-key", "NR" + "AK-" + chars(UPPER36, 27)),
        _bare("tailscale-key", "ts" + "key-auth-" + chars(BASE62, 17) + "-" + chars(BASE62, 32)),
        _bare("sonar-token", "sq" + "p_" + chars(HEX, 40)),
        _bare("doppler-token", "dp" + ".pt." + chars(BASE62, 43)),
        _bare("postman-key", "PM" + "AK-" + chars(HEX, 24) + "-" + chars(HEX, 34)),
        _bare("pulumi-token", "pu" + "l-" + chars(HEX, 40)),
        _bare("groq-key", "gs" + "k_" + chars(BASE62, 52)),
        _bare("supabase-token", "sb" + "p_" + chars(HEX, 40)),
        _bare("circleci-token", "CCI" + "PAT_" + chars(BASE62, 22) + "_" + chars(HEX, 40)),
        _bare("buildkite-token", "bk" + "ua_" + chars(HEX, 40)),
        _bare(
            "hybridq-private-key", "hq" + "sign_" + url64(hashlib.sha256(b"sign").digest() + b"sum1"), "hybridq-sign"
        ),
        _bare(
            "hybridq-private-key", "hq" + "open_" + url64(hashlib.sha256(b"open").digest() + b"sum2"), "hybridq-open"
        ),
    ]


SECRETS = _secrets()


def _png(size: int) -> str:
    return b64(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + _rng.randbytes(size))


def _harmless() -> list[str]:
    sha1 = [hashlib.sha1(str(i).encode(), usedforsecurity=False).hexdigest() for i in range(20)]
    sha256 = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(20)]
    sha512 = [b64(hashlib.sha512(str(i).encode()).digest()) for i in range(10)]
    uuids = [str(uuid.UUID(bytes=_rng.randbytes(16), version=4)) for _ in range(20)]
    ulids = ["01" + chars("0123456789ABCDEFGHJKMNPQRSTVWXYZ", 24) for _ in range(10)]
    images = [_png(size) for size in (60, 90, 300, 1000, 3000, 9000, 27000, 60000)]
    blobs = [b64(_rng.randbytes(size)) for size in (16, 30, 48, 64, 100, 1000, 20000)]
    blobs += [url64(_rng.randbytes(size)) for size in (16, 30, 48, 64, 100, 1000, 20000)]
    public = [
        "PUBLIC " + "KEY",
        "RSA PUBLIC " + "KEY",
        "CERTIFICATE",
        "CERTIFICATE REQUEST",
        "PGP PUBLIC " + "KEY BLOCK",
    ]
    dollar = "${{ "
    return [
        *sha1,
        *sha256,
        *uuids,
        *ulids,
        *images,
        *blobs,
        *(f"data:image/png;base64,{image}" for image in images[:4]),
        *(block(kind) for kind in public),
        *(f"sha512-{digest}" for digest in sha512),
        *(f"registry.example.com/team/app@sha256:{digest}" for digest in sha256[:5]),
        *(f"docker://alpine:3.{i}@sha256:{sha256[i]}" for i in range(5)),
        *(f"commit {digest}" for digest in sha1[:5]),
        *(f"{i}.{uuid.UUID(bytes=_rng.randbytes(16)).hex}" for i in (1, 17, 40_213)),
        *(f"lease_token={i}.{uuid.UUID(bytes=_rng.randbytes(16)).hex}" for i in (1, 17)),
        *(f"{pool}~job-0193{chars(HEX, 28)}" for pool in ("production", "ci.linux-x64", "gpu")),
        f"token: production~job-0193{chars(HEX, 28)}",
        *(f"idempotency_token={value}" for value in uuids[:3]),
        f"next_page_token: {url64(_rng.randbytes(24))}",
        f"session {uuids[0]} of agent build-7",
        f'"integrity": "sha512-{sha512[0]}"',
        f"resolved https://registry.npmjs.org/left-pad/-/left-pad-1.3.0.tgz#{sha1[0]}",
        f"    --hash=sha256:{sha256[0]} \\",
        f'checksum = "{sha256[1]}"',
        f"golang.org/x/net v0.30.0 h1:{b64(hashlib.sha256(b'net').digest())}",
        f"h1:{b64(hashlib.sha256(b'sys').digest())}",
        f"cache-key: linux-node-{sha256[2]}",
        f"cache_key={sha1[1]}",
        f"unique_key=deploy:{uuids[1]}",
        f"fair_key: tenant-{uuids[2]}",
        f'ETag: "{sha1[2]}"',
        f"traceparent: 00-{chars(HEX, 32)}-{chars(HEX, 16)}-01",
        f"https://ci.example.com/builds/{sha1[3]}?branch=main&attempt=2&sig=none",
        f"https://example.com/assets/app.{sha256[3][:20]}.js?v=1.2.3",
        "https://example.com/search?q=secret+santa&page=2&token_type=bearer",
        "https://user@example.com/path",
        "https://example.com:8443/user:name@tag",
        "ssh://git@github.com:22/acme/app.git",
        "git@github.com:acme/app.git",
        "git+ssh://git@github.com/acme/app.git@v1.2.3#egg=app",
        "postgres://app:${PASSWORD}@db.internal:5432/app",
        "postgres://app:$DB_PASSWORD@db.internal/app",
        "https://oauth2:{{ token }}@git.example.com",
        "https://deploy:***@git.example.com/app.git",
        "https://deploy:<password>@git.example.com/app.git",
        "amqp://user:xxxxx@rabbit:5672",
        "pkg:npm/%40acme/app@1.2.3?checksum=sha256:" + sha256[4],
        f"ssh-rsa {b64(bytes([0, 0, 0, 7]) + b'ssh-rsa' + _rng.randbytes(270))} dev@laptop",
        f"ssh-ed25519 {b64(bytes([0, 0, 0, 11]) + b'ssh-ed25519' + _rng.randbytes(36))} dev@laptop",
        "ecdsa-sha2-nistp256 " + b64(_rng.randbytes(104)),
        "age1" + chars("qpzry9x8gf2tvdw0s3jn54khce6mua7l", 58),
        f"SHA256:{b64(_rng.randbytes(32)).rstrip('=')}",
        "/home/ci/builds/app/src/main/java/com/acme/TokenProviderFactory2.java",
        "/nix/store/" + chars(BASE36, 32) + "-python3-3.11.9/bin/python3",
        "C:\\Users\\runner\\AppData\\Local\\Temp\\secret_manager\\v2\\config.json",
        "./node_modules/.pnpm/@babel+core@7.26.0/node_modules/@babel/core/lib/index.js",
        "token_file=/var/run/secrets/kubernetes.io/serviceaccount/token",
        "password_file: /run/secrets/db_password_2024_v3",
        "secret=/var/lib/app/8f14e45fceea167a5a36dedd4bea2543/value",
        "VAULT_ADDR=https://vault.internal:8200",
        "secret_ref: vault://kv/production/db#password",
        '{"secret_ref": "vault://kv/data/ci/registry#token"}',
        "vault://kv/production/db1#password2",
        "env://DEPLOY_TOKEN_V2",
        "file:///run/secrets/token2",
        "exec://bin/get-token?name=db1prod2",
        "TOKEN=env://DEPLOY_TOKEN_V2",
        f"token: {dollar}secrets.DEPLOY_TOKEN_2 }}}}",
        f"password: {dollar}secrets.X }}}}",
        "token=$TOKEN",
        "token=${TOKEN}",
        "PASSWORD=${PASSWORD:-}",
        "password=$DB_PASSWORD_V2",
        "--password $PASSWORD --user app",
        '--token "$(cat /run/secrets/token1)"',
        "password=%DB_PASSWORD%",
        "password=***",
        "password=********",
        "password: <your password here>",
        "password: xxxxxxxxxxxxxxxx",
        "secret: null",
        "token=undefined",
        "api_key: {{ api_key_v2 }}",
        "password=[redacted:assigned-secret]",
        "Authorization: Bearer $TOKEN",
        "Authorization: Bearer ${GITHUB_TOKEN}",
        "Authorization: Bearer <token>",
        "Authorization: Basic authentication is required",
        'WWW-Authenticate: Bearer realm="hybridq", error="invalid_token"',
        "a bearer certificate of deposit; basic arithmetic; tokens of appreciation",
        "token type Bearer, expires in 3600",
        "npm notice //registry.npmjs.org/:_authToken=${NPM_TOKEN}",
        "machine api.example.com login ci password $PASSWORD",
        "forgot password? reset-password-2024 page",
        "the secret of 3 bakers",
        "secret: my-app-tls-2024",
        "secretName: registry-credentials-v2",
        "secret: production/database/primary-1",
        "imagePullSecrets: ecr-pull-secret-eu-west-1",
        "token: my-service-account-token-v2",
        "secret=prod-eu1-k8s-v2-db3-r5",
        "token=20250301T101500Z",
        "api_key=MyService2TokenV3Provider",
        "password = getPassword(userId1)",
        "password=os.environ['DB_PASSWORD_1']",
        "auth: JohnDoe2024Smith",
        "author: 9f86d081884c7d659a2feaa0c55ad015",
        "authors=acme1234abcd5678efgh",
        "max_tokens: 4096, prompt_tokens=1024",
        "token_count=1234567890123",
        "csrf_token_name: hq_csrf",
        "private_key_id: " + sha1[4],
        "aws_access_key_id is not set",
        "aws_secret_access_key = ${AWS_SECRET_ACCESS_KEY}",
        "keyboard: monkey123456789012",
        "sk_live_ is how such keys begin",
        "tokens look like ghp_… or glpat-…",
        "gh" + "p_" + "x" * 36,
        "gl" + "pat-this-is-only-a-placeholder",
        "AK" + "IA" + "X" * 16,
        "task-proj-management-of-the-long-named-department",
        "disk-0123456789abcdef0123456789abcdef",
        "s.someMethodNameThatIsLong",
        "this.props.children.map(s.toLowerCaseAndTrimNow)",
        "hf_transfer_and_other_python_packages_here",
        "npm_config_registry=https://registry.npmjs.org/",
        "npm_package_dependencies_left_pad_version=1.3.0",
        "dapi" + "-docs",
        "v1.2.3-rc.4+build.20250301.sha.5114f85",
        "1.0.0-alpha.beta.1+exp.sha.5114f85e9f3c2d1b",
        "Python 3.11.9 (main, Apr  2 2024, 08:25:04) [GCC 13.2.0] on linux",
        "refs/heads/feature/JIRA-1234-rotate-api-keys",
        "eyJ is how JWTs begin",
        "eyJhIjoxfQ.eyJiIjoyfQ",
        url64(b'{"typ":"config","v":2}') + "." + url64(b'{"a":1}') + ".abc",
        "docs.python.org.example.internal.company-name-that-is-long.example.com",
        "com.acme.platform.security.TokenAuthenticationFilterRegistrationBean",
        "-" * 5 + "BEGIN PRIVATE " + "KEY-----\n...\n-----END PRIVATE " + "KEY-----",
        "expected a line -----BEGIN PRIVATE " + "KEY----- at the top of the file",
        "Mar 01 10:15:00 runner[812]: Step 3/12 : RUN make -j4 test",
        "\x1b[32m✓\x1b[0m 128 tests passed in 12.34s",
        "日本語のログ: パスワードは表示されません",
        "пароль: не показывается",
        "İstanbul'da derleme bitti, token=yok",
        "linux",
        "gpu",
        "os=linux",
        "arch=arm64",
        "!spot",
        "QUEUED",
        "urn:ietf:params:oauth:token-type:jwt",
    ]


HARMLESS = _harmless()

HARMLESS_JSON: list[object] = [
    {"sealed": b64(_rng.randbytes(96))},
    {"sealed": url64(_rng.randbytes(400))},
    {"env": {"DB_PASSWORD": {"secret_ref": "vault://kv/production/db#password"}}},
    {"secret_ref": "env://DEPLOY_TOKEN_V2"},
    {"secret_ref": "file:///run/secrets/db/password"},
    {"secret_ref": "exec://bin/token?name=db1prod2eu3"},
    {"password": "${DB_PASSWORD}", "token": "$TOKEN", "secret": "***", "api_key": ""},
    {"lease_token": f"12.{uuid.UUID(bytes=_rng.randbytes(16)).hex}", "token": f"7.{chars(HEX, 32)}"},
    {"holding": [f"12.{chars(HEX, 32)}", f"13.{chars(HEX, 32)}"]},
    {"token": None, "secret": 12, "password": True, "keys": [1.5, {}], "auth": []},
    {"request_token": str(uuid.UUID(bytes=_rng.randbytes(16))), "page_token": url64(_rng.randbytes(24))},
    {"secrets": ["registry-credentials", "tls-2024"], "secret_name": chars(BASE62, 20)},
    {"name": "PASSWORD", "value": "$PASSWORD"},
    ["docker", "login", "--password-stdin", "--username", "ci", "--token", "${TOKEN}"],
    {"sha": hashlib.sha256(b"x").hexdigest(), "digest": "sha256:" + hashlib.sha256(b"y").hexdigest()},
    {
        "token_type": "urn:ietf:params:oauth:token-type:jwt",
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
    },
]
