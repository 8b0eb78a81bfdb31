-- Carries requests to the host that has their session. Runs in nginx's workers, where this host is in a fleet.
--
-- The control plane says which host that is, and has done nothing then: by X-Accel-Redirect, in its answer to a question
-- of bodies.lua or preview.lua, or in its answer to a question from here. nginx moves the bytes itself.

local balancer = require "ngx.balancer"

local answers = require "answers"
local bodies = require "bodies"
local questions = require "questions"

local settings = ...

local match = string.match

local BODILESS = { GET = true, HEAD = true, OPTIONS = true } -- methods whose body nobody reads

-- Variable of nginx → the control plane's header.
local TOLD = {
  peer_id = "x-peer", peer_address = "x-peer-address", peer_hops = "x-peer-hops", peer_next = "x-peer-next",
  peer_limit = "x-ratelimit-limit", peer_remaining = "x-ratelimit-remaining", peer_reset = "x-ratelimit-reset",
}
local SHOWN = {
  ["X-RateLimit-Limit"] = "peer_limit", ["X-RateLimit-Remaining"] = "peer_remaining",
  ["X-RateLimit-Reset"] = "peer_reset",
}

local carrying = {}

-- Whether the control plane's answer to a question names another host.
function carrying.is_elsewhere(answer)
  return answer.headers["x-peer"] ~= nil
end

-- access phase: lets the host that the answer names answer the request. Its body must not have been read.
function carrying.carry(answer)
  for variable, name in pairs(TOLD) do
    local values = answer.headers[name]
    ngx.var[variable] = values and values[1] or ""
  end
  return ngx.exec("@peer")
end

-- access phase of a preview: the same for a visitor, who may be sent on by the answer of a second ago.
function carrying.carry_visitor(id, address)
  local var = ngx.var
  local hops = (tonumber(var.hops or "") or 0) + 1
  if hops > settings.most_hops then
    return false
  end
  var.peer_id, var.peer_address, var.peer_hops = id, address, hops
  return ngx.exec("@peer")
end

-- Asks for the session's host before a large body is read. Its key is checked, and what it may send.
local function ask_first()
  local answer = questions.send(bodies.question({ ["X-Buntime-Where"] = "1" }))
  if not answer then
    return ngx.exit(502) -- the control plane is away, so nobody would get the body
  end
  if carrying.is_elsewhere(answer) then
    return carrying.carry(answer)
  end
  if not answer.headers["x-here"] then
    return answers.give(answer)
  end
end

-- access phase of a request to the API. nginx reads what may come after this, and so can send it to another host.
function carrying.ask()
  local var = ngx.var
  if var.large ~= "" then
    return ask_first()
  end
  -- HTTP/2 needs no length, and nginx would keep such a body before the key is checked
  if var.http2 ~= "" and not var.http_content_length and BODILESS[ngx.req.get_method()] then
    ngx.req.discard_body()
  end
end

-- access phase of a request for a file, which nginx does not read before it passes it on.
function carrying.ask_for_file()
  local var = ngx.var
  if var.large ~= "" then
    return ask_first()
  end
  local length = tonumber(var.http_content_length or "")
  if length and length > 0 and length <= settings.small then
    ngx.req.read_body()
  end
end

-- rewrite phase of @peer: takes what the control plane has told nginx.
function carrying.begin()
  local var = ngx.var
  if var.peer_id ~= "" then
    return
  end
  for variable, name in pairs(TOLD) do
    var[variable] = var["upstream_http_" .. name:gsub("-", "_")] or ""
  end
end

-- balancer phase: connects to the other host.
function carrying.connect()
  local host, port = match(ngx.var.peer_address, "^(.+):(%d+)$")
  local set, reason = balancer.set_current_peer(host or "", tonumber(port))
  if not set then
    ngx.log(ngx.CRIT, "not an address of a host: ", reason)
    return ngx.exit(500)
  end
  balancer.enable_keepalive(settings.kept_seconds, settings.kept_requests)
end

-- header filter phase of @peer: this host has counted the request, so its limits are the client's.
function carrying.filter()
  for name, variable in pairs(SHOWN) do
    local value = ngx.var[variable]
    if value ~= "" then
      ngx.header[name] = value
    end
  end
end

-- The next of the hosts that may make a new session, if the last one has got nothing of the request.
local function next_peer()
  local var = ngx.var
  if match(var.upstream_connect_time or "", "[^ ,:]+$") ~= "-" and var.upstream_http_x_untaken ~= "1" then
    return false -- a connection was open, so the request may have been sent, or its control plane may have it
  end
  local id, address, rest = match(var.peer_next, "^([^@,]+)@([^,]+),?(.*)$")
  if not id then
    return false
  end
  var.peer_id, var.peer_address, var.peer_next = id, address, rest ~= "" and rest or "-"
  return true
end

-- content phase: the other host or its control plane could not be reached, or has left in the middle.
function carrying.away()
  if next_peer() then
    return ngx.exec("@peer")
  end
  ngx.header["Content-Type"] = "application/json"
  ngx.header["Retry-After"] = 1
  return answers.finish(503, settings.away)
end

return carrying
