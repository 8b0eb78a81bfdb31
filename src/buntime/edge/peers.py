"""What nginx does for a host of a fleet: carry requests to other hosts, and answer those that they carry here.

Hosts know each other by certificates (see `fleet.peer_keys`). The listener for them is of its own. There, and only
there, what the other host says of the client counts: its address, its scheme, and by how many hosts the request came.
A request passes no limit of addresses there, because the first host has counted it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from buntime.edge.refusals import Refusal, error, lua_string

MOST_HOPS = 3  # hosts that a request is carried to, one after another, while its session moves
KEPT = 256  # idle connections to other hosts that one worker keeps
KEPT_SECONDS = 60  # below `keepalive_timeout` of the other side
KEPT_REQUESTS = 100000
SMALL_BODY = 1 << 20  # bytes; nginx keeps them in memory, and can send them twice
LARGE_BODIES = 64  # at once: nginx keeps each on the disk until the request has ended
LARGE_OF_ADDRESS = 32  # of these, so that one address leaves room for others

AWAY = Refusal(503, "unavailable", "The host that has this session does not answer. Try again.", retry_after=1)


@dataclass(frozen=True, slots=True)
class Peers:
    """This host, as the others of its fleet see it."""

    host: str  # id, which its certificate has
    address: str  # for nginx's `listen`: 192.0.2.1:8443, [2001:db8::1]:8443
    authority: Path
    certificate: Path
    key: Path
    bodies: Path  # directory for large bodies, which workers own


FLEET = Template("""
  # A fleet: see `peers.py` and carrying.lua. Only the listener for hosts knows a client by its certificate.
  map $$ssl_client_verify $$from_peer { SUCCESS 1; default ""; }
  map $$from_peer $$client_scheme { 1 $$http_x_forwarded_proto; default $$scheme; }
  map $$from_peer $$hops { 1 $$http_x_buntime_hops; default ""; }
  map $$from_peer $$next_peers { 1 $$http_x_buntime_next; default ""; }
  # Bodies that are not small, or may not be: HTTP/2 needs neither header.
  map "$$http_content_length:$$http_transfer_encoding:$$http2:$$request_method" $$large {
    "~^[0-9]{7,}:" large;
    "~^:.+:.*:" large;
    "~^::h2c?:(?!GET$$|HEAD$$|OPTIONS$$)" large;
    default "";
  }
  map $$upstream_connect_time $$untaken { "~(^|[ ,:])-$$" 1; default ""; }
  map $$large $$large_source { large $$source; default ""; }
  limit_conn_zone $$large zone=large:1m;
  limit_conn_zone $$large_source zone=large_sources:4m;

  proxy_ssl_certificate $certificate;
  proxy_ssl_certificate_key $key;
  proxy_ssl_trusted_certificate $authority;
  proxy_ssl_verify on;
  proxy_ssl_protocols TLSv1.3;
  proxy_ssl_session_reuse off;

  upstream peers {
    server 0.0.0.1;  # the balancer sets the real address
    balancer_by_lua_block { require("carrying").connect() }
    balancer_keepalive $kept;
  }

  upstream questions {
    server unix:$edge_socket max_fails=0;
    keepalive 16;
    keepalive_timeout 60s;
  }
""")

# What hosts ask each other, and no client can: to count requests (see `fleet.asking`).
OF_HOSTS = """\
    location = /.hosts/count {
      if ($http_x_buntime_hops) { return 404; }  # a client's request that was carried here
      client_max_body_size 1m;
      proxy_request_buffering on;
      proxy_pass http://questions/count;
    }
"""

# Instead of what clients get: that the control plane does not answer, and whether it may have got the request.
TO_HOSTS = {
    502: """\
    error_page 502 /.refusal/502;
    location = /.refusal/502 {
      internal;
      client_max_body_size 0;
      add_header X-Untaken $untaken always;
      return 502;
    }
"""
}

# In a server of either kind.
DECLARED = """\
    set $peer_id "";
    set $peer_address "";
    set $peer_hops "";
    set $peer_next "";
    set $peer_limit "";
    set $peer_remaining "";
    set $peer_reset "";
"""

# For `location /`. A small body is read first, so that nginx can send it once more. Before a large one is, the control
# plane is asked for the session's host.
API_CARRIED = Template("""\
      proxy_request_buffering on;
      client_body_temp_path $bodies;
      proxy_ignore_headers $but_redirect;
      limit_conn large $large_bodies;
$limits
      access_by_lua_block { require("carrying").ask() }""")

FILE_CARRIED = Template("""\
      proxy_ignore_headers $but_redirect;
      access_by_lua_block {
        require("bodies").ask()
        require("carrying").ask_for_file()
      }""")

TO_PEER = Template("""\
    location @peer {
      client_max_body_size 0;  # the control plane has judged it
      rewrite_by_lua_block { require("carrying").begin() }
      # By this, nginx chooses the server there. The client could name a preview, beside an API as the target.
      proxy_set_header Host $$peer_id;
      proxy_set_header Connection $$connection_to_upstream;
      proxy_set_header Upgrade $$http_upgrade;
      proxy_set_header X-Request-Id $$rid;
      proxy_set_header X-Forwarded-For $$remote_addr;
      proxy_set_header X-Forwarded-Proto $$client_scheme;
      proxy_set_header X-Buntime-Peer $$peer_id;
      proxy_set_header X-Buntime-Hops $$peer_hops;
      proxy_set_header X-Buntime-Next $$peer_next;
      proxy_ssl_name $$peer_id;
      proxy_connect_timeout 3s;
      recursive_error_pages on;  # of the hosts for a new session, more than one may not answer
      proxy_intercept_errors on;  # where the other host's control plane does not answer
      error_page 502 504 = @away;
      header_filter_by_lua_block {
        require("carrying").filter()
        $learn
      }
      proxy_pass https://peers;
    }
    location @away {
      keepalive_timeout 0;  # some of the body may be unread, and nginx closes then: the client must know
      content_by_lua_block { require("carrying").away() }
    }
""")

VISIT_TO_PEER = Template("""\
    location @peer {
      error_log stderr crit;
      proxy_set_header Host $$http_host;
      proxy_set_header Connection $$connection_to_session;
      proxy_set_header Upgrade $$session_upgrade;
      proxy_set_header X-Request-Id $$rid;
      proxy_set_header X-Forwarded-For $$remote_addr;
      proxy_set_header X-Forwarded-Proto $$client_scheme;
      proxy_set_header X-Buntime-Peer $$peer_id;
      proxy_set_header X-Buntime-Hops $$peer_hops;
      proxy_ssl_name $$peer_id;
$hidden
      proxy_next_upstream off;
      error_page 502 504 = @away;
      proxy_pass https://peers;
    }
    location @away {
      keepalive_timeout 0;
      content_by_lua_block { require("preview").away() }
    }
""")

SERVER = Template("""
  # Requests that other hosts carry here.
  server {
    listen $address ssl$options;
    server_name $name;
    http2 off;
    ssl_certificate $certificate;
    ssl_certificate_key $key;
    ssl_client_certificate $authority;
    ssl_verify_client on;
    ssl_verify_depth 1;
    ssl_protocols TLSv1.3;
    ssl_session_cache off;
    ssl_session_tickets off;
    set_real_ip_from 0.0.0.0/0;
    set_real_ip_from ::/0;
    real_ip_header X-Forwarded-For;
    real_ip_recursive off;
    error_page 495 496 497 = @stranger;
    location @stranger { return 444; }
    # A kept connection could have been opened to a host that had this address before.
    if ($$http_x_buntime_peer != $host) { return 444; }
$answers  }
""")


def fleet(peers: Peers, edge_socket: Path) -> str:
    """At the level of http."""
    files = {"certificate": peers.certificate, "key": peers.key, "authority": peers.authority}
    return FLEET.substitute(files, kept=KEPT, edge_socket=edge_socket)


def lua(peers: Peers | None, path: Path, body_mb: int) -> str:
    """Loads carrying.lua, which does nothing where there is no fleet."""
    if peers is None:
        return ""
    away = lua_string(error(AWAY, body_mb))
    settings = f"most_hops = {MOST_HOPS}, small = {SMALL_BODY}, away = {away}"
    kept = f"kept_seconds = {KEPT_SECONDS}, kept_requests = {KEPT_REQUESTS}"
    return f"package.loaded.carrying = assert(loadfile({lua_string(str(path))}))({{ {settings}, {kept} }})"


def api_carried(peers: Peers, ignored: Sequence[str], limits: str) -> str:
    redirect = _but_redirect(ignored)
    return API_CARRIED.substitute(but_redirect=redirect, bodies=peers.bodies, large_bodies=LARGE_BODIES, limits=limits)


def file_carried(ignored: Sequence[str]) -> str:
    return FILE_CARRIED.substitute(but_redirect=_but_redirect(ignored))


def server(peers: Peers, name: str, options: str, answers: str) -> str:
    return SERVER.substitute(
        address=peers.address,
        options=options,
        name=name,
        certificate=peers.certificate,
        key=peers.key,
        authority=peers.authority,
        host=peers.host,
        answers=answers,
    )


def _but_redirect(ignored: Sequence[str]) -> str:
    """The control plane, and nothing else, may tell nginx where to send a request on."""
    return " ".join(f"X-Accel-{name}" for name in ignored if name != "Redirect")
