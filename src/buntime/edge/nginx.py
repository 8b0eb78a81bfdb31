"""The edge's nginx.conf: a pure function of the settings. Nothing of the system's own configuration is used."""

import json
from dataclasses import dataclass
from pathlib import Path
from string import Template

WORKERS = 2
CONNECTIONS = 8192  # of one worker, those to the control plane included
SLACK_MB = 1  # what a multipart or JSON frame may add to the largest body

# What the edge refuses by itself, in the form of the API's errors: status → (answered status, code, message).
# 494 is nginx's own number for a request header that is too large.
REFUSALS = {
    400: (400, "invalid_request", "This is not a valid HTTP request."),
    404: (404, "not_found", "There is no such route."),
    405: (405, "method_not_allowed", "This method is not allowed here."),
    408: (408, "execution_timeout", "The request did not arrive in time."),
    411: (411, "invalid_request", "The request needs a Content-Length."),
    413: (413, "payload_too_large", "The request body is larger than the $body_mb MB that any plan allows."),
    414: (414, "invalid_request", "The URL is too long."),
    494: (431, "invalid_request", "The request's header is too large."),
    500: (500, "internal_error", "Something went wrong on our side."),
    501: (501, "invalid_request", "This transfer encoding is not supported."),
    502: (503, "unavailable", "The server is starting or overloaded. Try again in a moment."),
    503: (503, "unavailable", "The server is starting or overloaded. Try again in a moment."),
    504: (503, "unavailable", "The server did not answer in time. Try again in a moment."),
    505: (505, "invalid_request", "This version of HTTP is not supported."),
}
RETRYABLE = ("execution_timeout", "unavailable")
HEADERS = {  # answered status → what belongs to it; the one method that nginx refuses itself is TRACE, on any path
    405: ("Allow", '"DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"'),
    503: ("Retry-After", "1"),
}

# A session is free to send nginx's own instructions; neither the edge nor the client is to see them.
INSTRUCTIONS = ("Redirect", "Expires", "Limit-Rate", "Buffering", "Charset")

MAIN = Template("""\
# Written by buntime at each start.
$user
daemon off;
pid $directory/nginx.pid;
error_log stderr error;
worker_processes $workers;
worker_rlimit_nofile $files;
worker_shutdown_timeout 5s;
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

  upstream control_plane {
    server unix:$socket max_fails=0;
    keepalive 64;
    keepalive_requests 1000000;
    keepalive_timeout 60s;  # below the control plane's own, or a request could meet a closing connection
  }

  client_header_timeout 30s;
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

  server {
$listen_default
    server_name _;
$refusals
    location / { proxy_pass http://control_plane; }
    # Bounded by the session's disk alone.
    location ~ ^/files/(content|archive)$$ {
      client_max_body_size 0;
      proxy_pass http://control_plane;
    }
  }

  # Previews of sessions.
  server {
$listen
    server_name ~^ses-[a-z0-9]+(-[0-9]+)?\\.;
$refusals
    location / { return 404 '$no_previews'; }
  }
}
""")

REFUSAL = Template("""\
    error_page $status = /.refusal/$status;
    location = /.refusal/$status {
      internal;
      add_header X-Request-Id $$rid always;$header
      return $answered '$body';
    }
""")


@dataclass(frozen=True, slots=True)
class Edge:
    """What the edge is told."""

    addresses: tuple[str, ...]  # as nginx's `listen` takes them: 127.0.0.1:8000, [::1]:8000
    socket: Path  # of the control plane
    directory: Path  # for nginx's pid file and temporary files
    body_mb: int  # the largest body of any plan
    user: str = "www-data"  # of the workers; "" where the server is not root and nginx cannot choose


def render(edge: Edge) -> str:
    """The whole nginx.conf."""
    return MAIN.substitute(
        user=f"user {edge.user};" if edge.user else "",
        directory=edge.directory,
        socket=edge.socket,
        workers=WORKERS,
        files=2 * CONNECTIONS + 1024,
        connections=CONNECTIONS,
        largest_mb=edge.body_mb + SLACK_MB,
        ignored="".join(f" X-Accel-{name}" for name in INSTRUCTIONS),
        hidden="\n".join(f"  proxy_hide_header X-Accel-{name};" for name in INSTRUCTIONS),
        listen_default=_listen(edge.addresses, " default_server backlog=4096"),
        listen=_listen(edge.addresses, ""),
        refusals="".join(_refusal(status, edge.body_mb) for status in REFUSALS),
        no_previews=_error("not_found", "Previews are not served yet."),
    )


def _listen(addresses: tuple[str, ...], options: str) -> str:
    return "\n".join(f"    listen {address}{options};" for address in addresses)


def _refusal(status: int, body_mb: int) -> str:
    answered, code, message = REFUSALS[status]
    name, value = HEADERS.get(answered, ("", ""))
    header = f"\n      add_header {name} {value} always;" if name else ""
    details = {"limit": body_mb << 20} if answered == 413 else {}
    body = _error(code, Template(message).substitute(body_mb=body_mb), **details)
    return REFUSAL.substitute(status=status, answered=answered, body=body, header=header)


def _error(code: str, message: str, **details: int) -> str:
    """The API's error object, as a string between single quotes of nginx."""
    error = {"code": code, "retryable": code in RETRYABLE, "message": message, "details": details}
    return json.dumps({"error": error}).replace("\\", "\\\\").replace("'", "\\'")
