"""The edge's nginx.conf: a pure function of the settings. Nothing of the system's own configuration is used."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from buntime.edge.refusals import PREVIEW_REFUSALS, REFUSALS, error, lua_string, preview_table
from buntime.preview import COOKIE, PERMISSION_SECONDS, QUERY

WORKERS = 2
# Of one worker, those to the control plane and to sessions included: by the host's memory, within these bounds. A
# connection with half a header takes 10 KB of nginx's memory, with TLS 40 KB, and 4 KB of the kernel's: with all of
# both workers in use these are 3 % of the host's memory, or 9 %.
CONNECTIONS, MOST_CONNECTIONS, MEMORY_OF_CONNECTION = 8192, 65536, 1 << 20
OTHER_FILES = 1024  # of one worker, beside its connections
SLACK_MB = 1  # what a multipart or JSON frame may add to the largest body
MODULES = Path("/usr/lib/nginx/modules")  # where Debian's packages put them
LUA_MODULES = ("ndk_http_module.so", "ngx_http_lua_module.so")
USER = "buntime-edge"  # of the workers; they alone, and root, may open the control plane's sockets
LUA = Path(__file__).parent

# A browser opens six connections to a host, or one. The kernel counts connections by the same number before a byte is
# read (see `sandboxes.edge_rules`); here requests under way are counted, of which an HTTP/2 connection has many, and
# those that a trusted proxy forwards, by the address that it names.
CONNECTIONS_OF_ADDRESS = 256
CONNECTIONS_OF_HOST = 2048
# Of the API, of one address, but for those with a good key (see callers.lua): the control plane answers 3,600 a second,
# and looks at the key only then.
REQUESTS_OF_ADDRESS, REQUESTS_AT_ONCE = 500, 1000  # a second
# In a second, of one client address. Guessing one of 36^18 sessions at this rate is hopeless.
REFUSALS_OF_ADDRESS = 30
# The same, of questions to the control plane, which can answer a few thousand. With valid permissions that is one a
# second for each host; a flood of made-up tokens ends here.
QUESTIONS_OF_ADDRESS = 2000

# Connections to sessions that are kept for the next request, of one worker. A thousand sessions that are asked in turn
# find theirs. Four seconds: Node closes its end after five, and a request that meets a closing connection fails; and
# far less than the 60 s that an address rests before another session gets it.
KEPT = 2048
KEPT_SECONDS = 4
KEPT_REQUESTS = 100000
HEADER_SECONDS = 10
OPEN = "24h"  # an open connection of a preview may be silent for so long

HEADERS = {  # answered status → what belongs to it; the one method that nginx refuses itself is TRACE, on any path
    405: ("Allow", '"DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"'),
}

# A session is free to send nginx's own instructions; neither the edge nor the client is to see them.
INSTRUCTIONS = ("Redirect", "Expires", "Limit-Rate", "Buffering", "Charset")

# What a client may claim about the way of its request.
CLAIMS = ("Server", "Prefix", "Scheme", "Ssl", "By", "Protocol", "Path", "Uri")

MAIN = Template("""\
# Written by buntime at each start.
$user
daemon off;
pid $directory/nginx.pid;
error_log stderr error;
worker_processes $workers;
worker_rlimit_nofile $files;
worker_shutdown_timeout 5s;
$modules
events { worker_connections $connections; }

http {
  access_log off;  # the control plane logs, with the account and the session
  server_tokens off;
  default_type application/json;
  client_body_temp_path $directory/body;
  proxy_temp_path $directory/proxy;
  fastcgi_temp_path $directory/fastcgi;
  uwsgi_temp_path $directory/uwsgi;
  scgi_temp_path $directory/scgi;

  # A client's own request id where it is usable, else ours: the edge's errors carry one too.
  map $$http_x_request_id $$rid {
    "~^[\\x21-\\x7e]{1,128}$$" $$http_x_request_id;
    default $$request_id;
  }
  map $$http_upgrade $$connection_to_upstream { "" ""; default upgrade; }
$proxies
  # Who is counted: an IPv4 address, or an IPv6 /64.
  map $$binary_remote_addr $$source {
    "~(?s)^(?<prefix>.{8}).{8}$$" $$prefix;
    default $$binary_remote_addr;
  }
  limit_conn_zone $$source zone=sources:16m;
  limit_conn_status 429;
  limit_conn_log_level info;  # below what is logged: a flood would else be one of log lines, too
  limit_req_zone $$counted zone=rates:16m rate=${requests}r/s;
  limit_req_status 429;
  limit_req_log_level info;

  upstream control_plane {
    server unix:$socket max_fails=0;
    keepalive 64;
    keepalive_requests 1000000;
    keepalive_timeout 60s;  # below the control plane's own, or a request could meet a closing connection
  }

  client_header_timeout ${header_seconds}s;  # for the whole header, and for a handshake of TLS before it
  client_body_timeout 120s;  # between two reads
  send_timeout 120s;
  keepalive_timeout 120s;
  keepalive_requests 100000;
  large_client_header_buffers 4 16k;  # a path of 4,095 bytes, percent-encoded
  client_max_body_size ${largest_mb}m;

  proxy_http_version 1.1;
  proxy_buffering off;
  # One read for what else takes dozens: 10 MB go through in half the time. Held only while there is something in it.
  proxy_buffer_size 256k;
  proxy_buffers 8 256k;
  proxy_busy_buffers_size 256k;
  client_body_buffer_size 1m;
  proxy_request_buffering off;
  proxy_next_upstream off;
  proxy_connect_timeout 5s;
  proxy_read_timeout 3700s;  # above the longest execution
  proxy_send_timeout 3700s;
  proxy_set_header Host $$http_host;
  proxy_set_header Connection $$connection_to_upstream;
  proxy_set_header Upgrade $$http_upgrade;
  proxy_set_header X-Request-Id $$rid;
  proxy_set_header X-Forwarded-For $$remote_addr;  # overwritten: what a client says of itself is no evidence
  proxy_set_header X-Forwarded-Proto $$scheme;
  proxy_set_header X-Forwarded-Host $$http_host;
  proxy_set_header X-Forwarded-Port "";
  proxy_set_header X-Real-IP $$remote_addr;
  proxy_set_header Forwarded "";
  proxy_ignore_headers$ignored;
$hidden
$tls
  server {
$listen_default
    server_name _;
    limit_conn sources $connections_of_address;
    limit_req zone=rates burst=$requests_at_once nodelay;
    set $$counted $$source;
    rewrite_by_lua_block { require("callers").count() }
    header_filter_by_lua_block { require("callers").learn() }
$refusals
    location / { proxy_pass http://control_plane; }
    # Bounded by the session's disk alone.
    location ~ ^/files/(content|archive)$$ {
      client_max_body_size 0;
      proxy_pass http://control_plane;
    }
  }
$previews}
""")

REFUSAL = Template("""\
    error_page $status = /.refusal/$status;
    location = /.refusal/$status {
      internal;
      add_header X-Request-Id $$rid always;$header
      return $answered '$body';
    }
""")

TLS = Template("""
  ssl_certificate $certificate;
  ssl_certificate_key $key;
  ssl_protocols TLSv1.2 TLSv1.3;
  ssl_ciphers ECDHE+AESGCM:ECDHE+CHACHA20;  # of TLS 1.2: forward secret and authenticated
  ssl_prefer_server_ciphers off;
  ssl_session_cache shared:tls:10m;
  ssl_session_tickets off;
  http2 on;
""")

PREVIEWS = Template("""
  # Previews of sessions: the host says which. See preview.lua.
  lua_package_path "/usr/share/lua/5.1/?.lua;;";
  lua_socket_log_errors off;
  lua_shared_dict permissions 8m;
  lua_shared_dict counts 2m;
  lua_shared_dict callers 4m;
  init_by_lua_block {
    package.loaded.callers = assert(loadfile($callers_lua))()
    package.loaded.questions = assert(loadfile($questions_lua))({ socket = $edge_socket })
    package.loaded.preview = assert(loadfile($preview_lua))({
      cookie = $cookie,
      query = $query,
      permission_seconds = $permission_seconds,
      refusals = $refusals_of_address,
      questions = $questions_of_address,
      kept_seconds = $kept_seconds,
      kept_requests = $kept_requests,
      pages = $pages,
    })
  }
  map "$$server_protocol $$http_upgrade" $$session_upgrade { "~*^HTTP/1.1 websocket$$" websocket; default ""; }
  map $$session_upgrade $$connection_to_session { "" ""; default upgrade; }
  map $$http_authorization $$session_authorization { ~btk_ ""; default $$http_authorization; }  # ours are for the API

  # Where a page keeps the token of a link in its address, the browser tells that address.
  map $$http_referer $$session_referer { ~$token_query= ""; default $$http_referer; }
  map $$http_ping_from $$session_ping_from { ~$token_query= ""; default $$http_ping_from; }

  limit_conn_zone $$host zone=hosts:8m;

  upstream sessions {
    server 0.0.0.1;  # the balancer names the real one
    balancer_by_lua_block { require("preview").connect() }
    balancer_keepalive $kept;
  }

  server {
$listen
    server_name ~^ses[-_];
    limit_conn sources $connections_of_address;
    limit_conn hosts $connections_of_host;
    client_max_body_size 0;
    client_body_timeout $open;
    send_timeout $open;
    proxy_read_timeout $open;
    proxy_send_timeout $open;
    proxy_connect_timeout 3s;
    proxy_socket_keepalive on;
    # A WebSocket holds two of these as long as it is open.
    proxy_buffer_size 128k;
    proxy_buffers 8 128k;
    proxy_busy_buffers_size 128k;
    client_body_buffer_size 64k;
    proxy_next_upstream error;  # a kept connection that the session just closed; what changes something is not repeated
    proxy_redirect off;
    proxy_set_header Host $$http_host;
    proxy_set_header Connection $$connection_to_session;
    proxy_set_header Upgrade $$session_upgrade;
    proxy_set_header Authorization $$session_authorization;
    proxy_set_header Cookie $$session_cookie;
    proxy_set_header X-Preview-Token "";
    proxy_set_header Referer $$session_referer;
    proxy_set_header Ping-From $$session_ping_from;
    proxy_set_header X-Request-Id $$rid;
    proxy_set_header X-Forwarded-For $$remote_addr;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Forwarded-Host $$http_host;
    proxy_set_header X-Forwarded-Port "";
    proxy_set_header X-Real-IP $$remote_addr;
    proxy_set_header Forwarded "";
$claims
$hidden
    proxy_hide_header Clear-Site-Data;  # it would clear what the browser has of the whole domain
    error_page $own_refusals @refused;
    error_page 497 =308 https://$$http_host$$request_uri;
    error_page 502 504 = @nothing;

    location / {
      error_log stderr crit;  # a visitor of a session where nothing listens would write a line with each request
      set $$session_uri $$request_uri;
      set $$session_cookie $$http_cookie;
      access_by_lua_block { require("preview").admit() }
      header_filter_by_lua_block { require("preview").filter() }
      proxy_pass http://sessions$$session_uri;
    }
    location @refused { content_by_lua_block { require("preview").refuse() } }
    location @nothing { content_by_lua_block { require("preview").nothing() } }
  }
""")


@dataclass(frozen=True, slots=True)
class Certificate:
    file: Path  # with the chain
    key: Path


@dataclass(frozen=True, slots=True)
class Edge:
    """What the edge is told."""

    addresses: tuple[str, ...]  # as nginx's `listen` takes them: 127.0.0.1:8000, [::1]:8000
    socket: Path  # of the control plane
    edge_socket: Path  # where it answers questions about previews
    directory: Path  # for nginx's pid file and temporary files
    body_mb: int  # the largest body of any plan
    user: str = USER  # "" where the server is not root and nginx cannot choose
    https: bool = False  # what visitors of previews speak, with the edge or with a proxy before it
    certificate: Certificate | None = None
    proxies: tuple[str, ...] = ()  # networks; what they say of a client's address is taken
    connections: int = CONNECTIONS  # of one worker


def render(edge: Edge) -> str:
    """The whole nginx.conf."""
    tls = edge.certificate
    return MAIN.substitute(
        user=f"user {edge.user};" if edge.user else "",
        modules="\n".join(f"load_module {MODULES / name};" for name in LUA_MODULES),
        directory=edge.directory,
        socket=edge.socket,
        workers=WORKERS,
        files=edge.connections + OTHER_FILES,
        connections=edge.connections,
        connections_of_address=CONNECTIONS_OF_ADDRESS,
        header_seconds=HEADER_SECONDS,
        requests=REQUESTS_OF_ADDRESS,
        requests_at_once=REQUESTS_AT_ONCE,
        proxies=_proxies(edge.proxies),
        largest_mb=edge.body_mb + SLACK_MB,
        ignored="".join(f" X-Accel-{name}" for name in INSTRUCTIONS),
        hidden=_hidden("  "),
        tls=TLS.substitute(certificate=tls.file, key=tls.key) if tls else "",
        # Probes find clients that are gone without a word.
        listen_default=_listen(edge, " default_server backlog=4096 so_keepalive=5m:30s:4"),
        refusals="".join(_refusal(status, edge.body_mb) for status in REFUSALS),
        previews=_previews(edge),
    )


def _previews(edge: Edge) -> str:
    return PREVIEWS.substitute(
        callers_lua=lua_string(str(LUA / "callers.lua")),
        questions_lua=lua_string(str(LUA / "questions.lua")),
        preview_lua=lua_string(str(LUA / "preview.lua")),
        cookie=lua_string(COOKIE),
        query=lua_string(QUERY),
        permission_seconds=PERMISSION_SECONDS,
        edge_socket=lua_string(f"unix:{edge.edge_socket}"),
        refusals_of_address=REFUSALS_OF_ADDRESS,
        questions_of_address=QUESTIONS_OF_ADDRESS,
        pages=preview_table(),
        token_query=QUERY,
        kept=KEPT,
        kept_seconds=KEPT_SECONDS,
        kept_requests=KEPT_REQUESTS,
        listen=_listen(edge, ""),
        connections_of_address=CONNECTIONS_OF_ADDRESS,
        connections_of_host=CONNECTIONS_OF_HOST,
        open=OPEN,
        scheme="https" if edge.https else "$scheme",
        claims="\n".join(f'    proxy_set_header X-Forwarded-{name} "";' for name in CLAIMS),
        hidden=_hidden("    "),
        own_refusals=" ".join(str(status) for status in PREVIEW_REFUSALS if status != 502),
    )


def connections_for(memory: int) -> int:
    """How many one worker should have on a host with so many bytes of memory."""
    return max(CONNECTIONS, min(MOST_CONNECTIONS, memory // MEMORY_OF_CONNECTION))


def _proxies(networks: Sequence[str]) -> str:
    """The client's address is the last in X-Forwarded-For that is not a trusted proxy's."""
    if not networks:
        return ""
    trusted = "".join(f"  set_real_ip_from {network};\n" for network in networks)
    return f"{trusted}  real_ip_header X-Forwarded-For;\n  real_ip_recursive on;\n"


def _hidden(indent: str) -> str:
    return "\n".join(f"{indent}proxy_hide_header X-Accel-{name};" for name in INSTRUCTIONS)


def _listen(edge: Edge, options: str) -> str:
    ssl = " ssl" if edge.certificate else ""
    return "\n".join(f"    listen {address}{ssl}{options};" for address in edge.addresses)


def _refusal(status: int, body_mb: int) -> str:
    refusal = REFUSALS[status]
    name, value = HEADERS.get(refusal.status, ("", ""))
    if refusal.retry_after is not None:
        name, value = "Retry-After", str(refusal.retry_after)
    header = f"\n      add_header {name} {value} always;" if name else ""
    body = error(refusal, body_mb).replace("\\", "\\\\").replace("'", "\\'")
    return REFUSAL.substitute(status=status, answered=refusal.status, body=body, header=header)
