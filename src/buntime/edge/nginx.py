"""The edge's nginx.conf, a pure function of the settings. It uses nothing of the system's own configuration."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from buntime.edge import peers as fleet
from buntime.edge.peers import LARGE_OF_ADDRESS, Peers
from buntime.edge.refusals import PREVIEW_REFUSALS, REFUSALS, error, lua_string, preview_table
from buntime.look import CONTENT_POLICY
from buntime.preview import COOKIE, PERMISSION_SECONDS, QUERY

WORKERS = 2
# Connections of one worker, including those to the control plane and to sessions. The host's memory decides, within
# these bounds. A connection with half a header takes 10 KB of nginx's memory (40 KB with TLS) and 4 KB of the kernel's.
# If both workers use all connections, that is 3 % of the host's memory (9 % with TLS).
CONNECTIONS, MOST_CONNECTIONS, MEMORY_OF_CONNECTION = 8192, 65536, 1 << 20
OTHER_FILES = 1024  # open files of one worker besides its connections
SLACK_MB = 1  # what JSON encoding may add to the largest body
MODULES = Path("/usr/lib/nginx/modules")  # Debian's location
LUA_MODULES = ("ndk_http_module.so", "ngx_http_lua_module.so")
USER = "buntime-edge"  # of the workers; only they and root may open the control plane's sockets
LUA = Path(__file__).parent

# A browser opens one to six connections to a host. The kernel applies the same limit to connections before it reads a
# byte (see `sandboxes.edge_rules`). nginx counts requests under way: an HTTP/2 connection has many, and requests from a
# trusted proxy count for the address that the proxy names.
CONNECTIONS_OF_ADDRESS = 256
CONNECTIONS_OF_HOST = 2048
# API requests per second from one address, except those with a valid key (see callers.lua). The control plane answers
# 3,600 a second, and checks the key only there.
REQUESTS_OF_ADDRESS, REQUESTS_AT_ONCE = 500, 1000
# Refused preview requests per second from one address. At this rate nobody guesses one of 36^18 sessions.
REFUSALS_OF_ADDRESS = 30
# Questions to the control plane per second for one address. The control plane can answer a few thousand. A client with
# valid permissions causes one question a second for each host; this limit stops a flood of made-up tokens.
QUESTIONS_OF_ADDRESS = 2000

# Idle connections to sessions that one worker keeps for the next request. A thousand sessions used in turn all find
# theirs. Node closes its end after five seconds, and a request on a closing connection fails, so nginx closes after
# four. That is also far less than the 60 s before a session's address goes to another session.
KEPT = 2048
KEPT_SECONDS = 4
KEPT_REQUESTS = 100000
HEADER_SECONDS = 10
# Files. Smaller uploads go through the control plane, which needs no second connection for them.
LEAST_BODY = 1 << 20  # bytes
BODY_BUFFER = "512k"  # of one download
BODY_SILENCE = 120  # seconds without a byte from a guest, or to it
OPEN = "24h"  # how long an open connection of a preview may be silent

HEADERS = {  # status → its header; TRACE is the only method that nginx itself refuses, on every path
    405: ("Allow", '"DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"'),
}

# A session can send nginx's own instructions. The edge must not follow them, and the client must not see them.
INSTRUCTIONS = ("Redirect", "Expires", "Limit-Rate", "Buffering", "Charset")

LISTEN = "backlog=4096 so_keepalive=5m:30s:4"  # of each address
LEARN = 'require("callers").learn()'

# What a client could claim about the route of its request.
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

  # The client's own request id if it is usable, else a new one. The edge's errors carry it too.
  map $$http_x_request_id $$rid {
    "~^[\\x21-\\x7e]{1,128}$$" $$http_x_request_id;
    default $$request_id;
  }
  map $$http_upgrade $$connection_to_upstream { "" ""; default upgrade; }
$proxies
  # Limits count by IPv4 address or IPv6 /64.
  map $$binary_remote_addr $$source {
    "~(?s)^(?<prefix>.{8}).{8}$$" $$prefix;
    default $$binary_remote_addr;
  }
  limit_conn_zone $$source zone=sources:16m;
  limit_conn_status 429;
  limit_conn_log_level info;  # not logged: otherwise a flood would flood the log too
  limit_req_zone $$counted zone=rates:16m rate=${requests}r/s;
  limit_req_status 429;
  limit_req_log_level info;

  upstream control_plane {
    server unix:$socket max_fails=0;
    keepalive 64;
    keepalive_requests 1000000;
    keepalive_timeout 60s;  # below the control plane's own, or a request could hit a closing connection
  }

  client_header_timeout ${header_seconds}s;  # for the whole header, and for the TLS handshake before it
  client_body_timeout 120s;  # between two reads
  send_timeout 120s;
  keepalive_timeout 120s;
  keepalive_requests 100000;
  large_client_header_buffers 4 16k;  # fits a path of 4,095 bytes, percent-encoded
  client_max_body_size ${largest_mb}m;

  proxy_http_version 1.1;
  proxy_buffering off;
  # One read instead of dozens: 10 MB pass in half the time. nginx holds the buffers only while they have data.
  proxy_buffer_size 256k;
  proxy_buffers 8 256k;
  proxy_busy_buffers_size 256k;
  client_body_buffer_size 1m;
  proxy_request_buffering off;
  proxy_next_upstream off;
  proxy_connect_timeout 5s;
  proxy_read_timeout 3700s;  # above the longest run
  proxy_send_timeout 3700s;
  proxy_set_header Host $$http_host;
  proxy_set_header Connection $$connection_to_upstream;
  proxy_set_header Upgrade $$http_upgrade;
  proxy_set_header X-Request-Id $$rid;
  proxy_set_header X-Forwarded-For $$remote_addr;  # overwritten: what a client claims is no evidence
  proxy_set_header X-Forwarded-Proto $client_scheme;
  proxy_set_header X-Forwarded-Host $$http_host;
  proxy_set_header X-Forwarded-Port "";
  proxy_set_header X-Real-IP $$remote_addr;
  proxy_set_header Forwarded "";
  proxy_set_header X-Buntime-Hops $hops;  # what a host of the fleet says to another one: see `peers.py`
  proxy_set_header X-Buntime-Next $next;
  proxy_set_header X-Buntime-Peer "";
  proxy_ignore_headers$ignored;
$hidden
$tls
$fleet
  server {
$listen_default
    server_name _;
    limit_conn sources $connections_of_address;
    limit_req zone=rates burst=$requests_at_once nodelay;
    set $$counted $$source;
    rewrite_by_lua_block { require("callers").count() }
    header_filter_by_lua_block { require("callers").learn() }
$api
  }
$previews
$peers}
""")

# What a server of the API answers. $api_carried, $file_carried and $to_peer are empty where there is no fleet.
API = Template("""\
$refusals
    log_by_lua_block { require("bodies").ended() }
    location / {
$api_carried
      proxy_pass http://control_plane;
    }
    # Only the session's disk limits these. Large ones pass between the client and the session's guest: see bodies.lua.
    location ~ ^/files/(content|archive)\\z {
      client_max_body_size 0;
      set $$body_number "";
      set $$body_address "";
      set $$body_ticket "";
$file_carried
      proxy_pass http://control_plane;
    }
    location @body {
      error_log stderr crit;  # otherwise each guest that breaks off writes a line
      client_max_body_size 0;
      proxy_pass_request_headers off;  # the key is not for the session
      proxy_set_header Host guest;
      proxy_set_header Connection close;
      proxy_buffer_size $body_buffer;
      proxy_busy_buffers_size $body_buffer;
      proxy_connect_timeout 3s;
      proxy_read_timeout ${body_silence}s;
      proxy_send_timeout ${body_silence}s;
      lua_transform_underscores_in_response_headers off;  # the names of the guest's headers, to remove them all
      proxy_intercept_errors on;  # an upload ends with an error of the guest, and the control plane's answer to it
      error_page 408 /.refusal/408;
      error_page $from_guest = @carried;
      header_filter_by_lua_block {
        require("bodies").filter()
        $learn
      }
      proxy_pass http://$$body_address/$$body_ticket;
    }
    location @carried { content_by_lua_block { require("bodies").answer() } }
$to_peer""")

REFUSAL = Template("""\
    error_page $status = /.refusal/$status;
    location = /.refusal/$status {
      internal;
      client_max_body_size 0;  # of the request that is refused
      add_header X-Request-Id $$rid always;$header
      return $answered '$body';
    }
""")

TLS = Template("""
  ssl_certificate $certificate;
  ssl_certificate_key $key;
  ssl_protocols TLSv1.2 TLSv1.3;
  ssl_ciphers ECDHE+AESGCM:ECDHE+CHACHA20;  # for TLS 1.2: forward secrecy and authentication
  ssl_prefer_server_ciphers off;
  ssl_session_cache shared:tls:10m;
  ssl_session_tickets off;
  http2 on;
""")

PREVIEWS = Template("""
  # Previews: the host name selects the session. See preview.lua.
  lua_package_path "/usr/share/lua/5.1/?.lua;;";
  lua_socket_log_errors off;
  lua_shared_dict permissions 8m;
  lua_shared_dict given 2m;  # permissions of the last two seconds
  lua_shared_dict counts 2m;
  lua_shared_dict callers 4m;
  # One timer for each request whose body passes by the control plane.
  lua_max_running_timers $connections;
  lua_max_pending_timers $connections;
  init_by_lua_block {
    package.loaded.callers = assert(loadfile($callers_lua))()
    package.loaded.answers = assert(loadfile($answers_lua))()
    package.loaded.bodies = assert(loadfile($bodies_lua))({
      socket = $edge_socket,
      least = $least_body,
      refusal = $refusal,
    })
    package.loaded.questions = assert(loadfile($questions_lua))({ socket = $edge_socket })
    package.loaded.renewals = assert(loadfile($renewals_lua))({ permission_seconds = $permission_seconds })
    $carrying
    package.loaded.preview = assert(loadfile($preview_lua))({
      cookie = $cookie,
      query = $query,
      permission_seconds = $permission_seconds,
      refusals = $refusals_of_address,
      questions = $questions_of_address,
      kept_seconds = $kept_seconds,
      kept_requests = $kept_requests,
      pages = $pages,
      page_policy = $page_policy,
    })
  }
  map "$$server_protocol $$http_upgrade" $$session_upgrade { "~*^HTTP/1.1 websocket$$" websocket; default ""; }
  map $$session_upgrade $$connection_to_session { "" ""; default upgrade; }
  map $$http_authorization $$session_authorization { ~btk_ ""; default $$http_authorization; }  # the key is for the API

  # A browser sends the page's address, which may contain a token.
  map $$http_referer $$session_referer { ~$token_query= ""; default $$http_referer; }
  map $$http_ping_from $$session_ping_from { ~$token_query= ""; default $$http_ping_from; }

  limit_conn_zone $$host zone=hosts:8m;

  upstream sessions {
    server 0.0.0.1;  # the balancer sets the real address
    balancer_by_lua_block { require("preview").connect() }
    balancer_keepalive $kept;
  }

  server {
$listen
    server_name ~^ses[-_];
    limit_conn sources $connections_of_address;
    limit_conn hosts $connections_of_host;
$visits
  }
""")

# What a server of previews answers. $to_peer is empty where there is no fleet.
VISITS = Template("""\
    client_max_body_size 0;
    client_body_timeout $open;
    send_timeout $open;
    proxy_read_timeout $open;
    proxy_send_timeout $open;
    proxy_connect_timeout 3s;
    proxy_socket_keepalive on;
    # An open WebSocket holds two of these.
    proxy_buffer_size 128k;
    proxy_buffers 8 128k;
    proxy_busy_buffers_size 128k;
    client_body_buffer_size 64k;
    proxy_next_upstream error;  # retry if the session just closed a kept connection; nginx retries only safe requests
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
    proxy_set_header X-Buntime-Peer "";
    proxy_set_header X-Buntime-Hops "";
$claims
$hidden
    proxy_hide_header Clear-Site-Data;  # it would clear the browser's data of the whole domain
    proxy_hide_header X-Preview-Error;  # marks answers that are not the program's
    error_page $own_refusals @refused;
    error_page 497 =308 https://$$http_host$$request_uri;
    error_page 502 504 = @nothing;

    location / {
      error_log stderr crit;  # otherwise each request to a session without a server writes a line
      set $$session_uri $$request_uri;
      set $$session_cookie $$http_cookie;
      access_by_lua_block { require("preview").admit() }
      header_filter_by_lua_block { require("preview").filter() }
      proxy_pass http://sessions$$session_uri;
    }
    location @refused { content_by_lua_block { require("preview").refuse() } }
    location @nothing { content_by_lua_block { require("preview").nothing() } }
$to_peer""")


@dataclass(frozen=True, slots=True)
class Certificate:
    file: Path  # with the chain
    key: Path


@dataclass(frozen=True, slots=True)
class Edge:
    """The settings of the edge."""

    addresses: tuple[str, ...]  # for nginx's `listen`: 127.0.0.1:8000, [::1]:8000
    socket: Path  # the control plane's
    edge_socket: Path  # where the control plane answers questions about previews
    directory: Path  # for nginx's pid file and temporary files
    body_mb: int  # the largest body of any plan
    user: str = USER  # "" if the server is not root, so that nginx cannot choose
    https: bool = False  # visitors of previews use HTTPS, to the edge or to a proxy in front of it
    certificate: Certificate | None = None
    proxies: tuple[str, ...] = ()  # networks whose word on the client's address counts
    connections: int = CONNECTIONS  # of one worker
    peers: Peers | None = None  # None: this host is in no fleet


def render(edge: Edge) -> str:
    """The whole nginx.conf."""
    tls, peers = edge.certificate, edge.peers
    limits = f"limit_conn sources {CONNECTIONS_OF_ADDRESS};\n      limit_conn large_sources {LARGE_OF_ADDRESS};"
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
        # Keep-alive probes find clients that vanished.
        listen_default=_listen(edge, f" default_server {LISTEN}"),
        client_scheme="$client_scheme" if peers else "$scheme",
        hops="$hops" if peers else '""',
        next="$next_peers" if peers else '""',
        fleet=fleet.fleet(peers, edge.edge_socket) if peers else "",
        api=_api(edge, limits, LEARN),
        previews=_previews(edge),
        peers=_peer_servers(edge, peers) if peers else "",
    )


def _api(edge: Edge, limits: str, learn: str, *, for_hosts: bool = False) -> str:
    """What a server of the API answers. `learn`: what follows from the header of an answer to a caller. `for_hosts`:
    it answers hosts, and not clients."""
    peers, asks = edge.peers, '      access_by_lua_block { require("bodies").ask() }'
    refusals = {status: _refusal(status, edge.body_mb) for status in REFUSALS} | (fleet.TO_HOSTS if for_hosts else {})
    return (fleet.DECLARED if peers else "") + API.substitute(
        refusals="".join(refusals.values()),
        api_carried=fleet.api_carried(peers, INSTRUCTIONS, limits) if peers else "",
        file_carried=fleet.file_carried(INSTRUCTIONS) if peers else asks,
        to_peer=fleet.TO_PEER.substitute(learn=learn) if peers else "",
        learn=learn,
        body_buffer=BODY_BUFFER,
        body_silence=BODY_SILENCE,
        from_guest=" ".join(str(status) for status in REFUSALS if status != 408),
    )


def _visits(edge: Edge) -> str:
    """What a server of previews answers."""
    scheme = "$client_scheme" if edge.peers else "$scheme"
    hidden = _hidden("    ")
    return (fleet.DECLARED if edge.peers else "") + VISITS.substitute(
        open=OPEN,
        scheme="https" if edge.https else scheme,
        claims="\n".join(f'    proxy_set_header X-Forwarded-{name} "";' for name in CLAIMS),
        hidden=hidden,
        own_refusals=" ".join(str(status) for status in PREVIEW_REFUSALS if status != 502),
        to_peer=fleet.VISIT_TO_PEER.substitute(hidden=_hidden("      ")) if edge.peers else "",
    )


def _peer_servers(edge: Edge, peers: Peers) -> str:
    """Other hosts have counted their clients."""
    api = _api(edge, "", "", for_hosts=True) + fleet.OF_HOSTS
    previews = fleet.server(peers, "~^ses[-_]", "", f"    limit_conn hosts {CONNECTIONS_OF_HOST};\n{_visits(edge)}")
    return fleet.server(peers, "_", f" default_server {LISTEN}", api) + previews


def _previews(edge: Edge) -> str:
    return PREVIEWS.substitute(
        connections=edge.connections,
        least_body=LEAST_BODY,
        refusal=lua_string(error(REFUSALS[503], edge.body_mb)),
        answers_lua=lua_string(str(LUA / "answers.lua")),
        bodies_lua=lua_string(str(LUA / "bodies.lua")),
        callers_lua=lua_string(str(LUA / "callers.lua")),
        questions_lua=lua_string(str(LUA / "questions.lua")),
        preview_lua=lua_string(str(LUA / "preview.lua")),
        renewals_lua=lua_string(str(LUA / "renewals.lua")),
        carrying=fleet.lua(edge.peers, LUA / "carrying.lua", edge.body_mb),
        cookie=lua_string(COOKIE),
        query=lua_string(QUERY),
        permission_seconds=PERMISSION_SECONDS,
        edge_socket=lua_string(f"unix:{edge.edge_socket}"),
        refusals_of_address=REFUSALS_OF_ADDRESS,
        questions_of_address=QUESTIONS_OF_ADDRESS,
        pages=preview_table(),
        page_policy=lua_string(CONTENT_POLICY),
        token_query=QUERY,
        kept=KEPT,
        kept_seconds=KEPT_SECONDS,
        kept_requests=KEPT_REQUESTS,
        listen=_listen(edge, ""),
        connections_of_address=CONNECTIONS_OF_ADDRESS,
        connections_of_host=CONNECTIONS_OF_HOST,
        visits=_visits(edge),
    )


def connections_for(memory: int) -> int:
    """The connections of one worker on a host with this many bytes of memory."""
    return max(CONNECTIONS, min(MOST_CONNECTIONS, memory // MEMORY_OF_CONNECTION))


def _proxies(networks: Sequence[str]) -> str:
    """The client's address is the last one in X-Forwarded-For that does not belong to a trusted proxy."""
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
