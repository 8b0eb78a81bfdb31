-- Previews: asks the control plane who may reach which session. Runs in nginx's workers.
--
-- nginx's master loads this file once with a table of settings (see `nginx.py`). It returns a function for each phase.

local balancer = require "ngx.balancer"

local answers = require "answers"
local questions = require "questions"
local renewals = require "renewals"

local settings = ...

local LONGEST_TOKEN = 256 -- real tokens are shorter; answers for longer ones are never remembered

local permissions, counts = ngx.shared.permissions, ngx.shared.counts
local find, lower, match, gmatch, gsub = string.find, string.lower, string.match, string.gmatch, string.gsub

-- Counts per client, in windows of one second.

local function client()
  local address = ngx.var.binary_remote_addr
  return #address == 16 and address:sub(1, 8) or address -- an IPv6 client has a /64
end

local function count(kind)
  return counts:incr(kind .. client(), 1, 0, 1) or 0
end

local function too_many_refusals()
  return (counts:get("refused" .. client()) or 0) >= settings.refusals
end

-- Answers to the client.

-- The edge's own refusal: a page for browsers, the API's error object for others.
local function refuse(status)
  local refusal = settings.pages[status] or settings.pages[500]
  local header = ngx.header
  header["Cache-Control"] = "no-store"
  header["Retry-After"] = refusal.retry_after
  header["X-Preview-Error"] = refusal.code
  if find(ngx.var.http_accept or "", "text/html", 1, true) then
    header["Content-Type"] = "text/html; charset=utf-8"
    header["Content-Security-Policy"] = settings.page_policy
    return answers.finish(refusal.status, refusal.page)
  end
  header["Content-Type"] = "application/json"
  return answers.finish(refusal.status, refusal.error)
end

-- What the client sends.

-- The value of our cookie, and the rest of the header, which the session may see.
local function split_cookies(header)
  local ours
  local others = {}
  for pair in gmatch(header, "[^;]+") do
    pair = match(pair, "^%s*(.-)%s*$")
    local name, value = match(pair, "^([^=]-)%s*=%s*(.*)$")
    if name == settings.cookie then
      ours = ours or value
    elseif pair ~= "" then
      others[#others + 1] = pair
    end
  end
  return ours, table.concat(others, "; ")
end

local function take_cookie(var)
  local header = var.http_cookie
  if not header or not find(header, settings.cookie, 1, true) then
    return nil
  end
  local ours, others = split_cookies(header)
  var.session_cookie = others
  return ours
end

-- Whether the Host header names the host by which nginx chose the server. An absolute target can name another.
local function is_one_host(host, chosen)
  local name = match(host, "^([%w_.-]+):?%d*$")
  return name == chosen or name == chosen .. "."
end

-- Permissions.

-- The session's address, or its host as ID@ADDRESS; nil after the client got its refusal.
local function heed(answer, key)
  if not questions.is_permission(answer) then
    if answer.status == 401 or answer.status == 403 or answer.status == 404 then
      count("refused")
    end
    answers.give(answer)
    return nil
  end
  local peer = answer.headers["x-peer"]
  local upstream = peer and peer[1] .. "@" .. answer.headers["x-peer-address"][1] or answer.headers["x-upstream"][1]
  local uri = answer.headers["x-uri"]
  if uri then
    ngx.var.session_uri = uri[1] -- this URL had the token, so there is nothing to remember
    return upstream
  end
  local seconds = tonumber((answer.headers["x-cache"] or {})[1]) or 0
  if key and seconds > 0 then
    renewals.remember(key, upstream, math.min(seconds, settings.permission_seconds))
  end
  return upstream
end

-- The functions of the phases.

local preview = {}

-- Errors of sessions are not logged (see `nginx.py`), but errors of this program are.
local function logged(phase)
  return function()
    local ok, failed = xpcall(phase, debug.traceback)
    if not ok then
      ngx.log(ngx.CRIT, failed)
      return ngx.exit(500)
    end
  end
end

-- Passes the request on: to the session, or to the host that has it.
local function go(upstream)
  local id, address = match(upstream, "^(.+)@(.+)$")
  if not id then
    ngx.ctx.upstream = upstream
  elseif not require("carrying").carry_visitor(id, address) then
    return refuse(503)
  end
end

-- access phase: finds the session, or answers.
preview.admit = logged(function()
  local var = ngx.var
  local host = lower(var.http_host or "")
  if not is_one_host(host, var.host) or ngx.req.http_version() < 1.0 then
    return refuse(400)
  end
  local token = var.http_x_preview_token
  local cookie = take_cookie(var)
  local key
  if not find(var.args or "", settings.query, 1, true) and #(token or "") <= LONGEST_TOKEN and #(cookie or "") <= LONGEST_TOKEN then
    key = host .. "\0" .. (token or "") .. "\0" .. (cookie or "")
  end
  local upstream = key and permissions:get(key)
  if upstream then
    if renewals.is_due(key, upstream) and (var.from_peer == "1" or count("asked") <= settings.questions) then
      renewals.add(key)
    end
    return go(upstream)
  end
  -- the first host of a fleet has counted a request that comes from it
  if var.from_peer ~= "1" and (too_many_refusals() or count("asked") > settings.questions) then
    return refuse(429)
  end
  local answer = questions.admit(key, host, token, cookie)
  if not answer then
    return refuse(503)
  end
  upstream = heed(answer, key)
  return upstream and go(upstream)
end)

-- balancer phase: connects to the session.
preview.connect = logged(function()
  local set, reason = balancer.set_current_peer(ngx.ctx.upstream)
  if not set then
    ngx.log(ngx.CRIT, "not an address of a session: ", reason)
    return ngx.exit(500)
  end
  balancer.enable_keepalive(settings.kept_seconds, settings.kept_requests)
end)

-- content phase, if the session could not be reached or gave no valid answer.
function preview.nothing()
  local var = ngx.var
  if find(var.upstream_connect_time or "-", "%d$") then
    return refuse(502)
  end
  if count("nothing") > settings.refusals then
    return refuse(429)
  end
  local answer = questions.nothing(lower(var.http_host), var.http_x_preview_token, (take_cookie(var)))
  if not answer or questions.is_permission(answer) then -- the session has moved since the request was admitted
    return refuse(503)
  end
  return answers.give(answer)
end

-- content phase, if the host that has the session could not be reached.
function preview.away()
  return refuse(503)
end

-- content phase, for requests that nginx itself refuses.
function preview.refuse()
  return refuse(ngx.status)
end

-- Whether a browser would send this cookie as ours. A cookie without a name is sent as its value alone.
local function is_ours(cookie)
  return match(lower(cookie), "^[%s=]*([^%s=;]*)") == settings.cookie
end

-- Whether the answer is final and has a header. This nginx would take HTTP 0.9 and interim answers as final.
local function is_sound()
  local status = ngx.status
  return ngx.req.http_version() >= 1.0 and (status >= 200 or status == 101 and ngx.var.session_upgrade ~= "")
end

-- Restricts a session's Set-Cookie to this host. Returns nil if it must not pass.
--
-- A browser ends the value at the first semicolon, even inside quotes; other clients keep a quoted value whole. If the
-- two readings differ, nothing is removed from the middle, because that would change the value for one of them. One such
-- client also starts an attribute after a space, and accepts `$Domain`.
local function for_this_host(cookie)
  local pair, rest = match(cookie, "^([^;]*)(.*)$")
  local kept, found = { pair }, false
  for attribute in gmatch(rest, ";([^;]*)") do
    local name = gsub(match(attribute, "^[^=]*"), "[^!-~]", "") -- clients differ in what they treat as a space
    if match(lower(name), "^%$?domain$") then
      found = true
    else
      kept[#kept + 1] = attribute
    end
  end
  local _, quotes = gsub(gsub(pair, "\\.", ""), '"', "")
  if found and quotes % 2 == 1 then
    return nil
  end
  local passed = table.concat(kept, ";")
  if match(lower(passed), "[^!-~]%$?domain[^!-~]*=") then
    return nil
  end
  return passed
end

-- header filter phase: checks and cleans the session's answer.
preview.filter = logged(function()
  if not ngx.ctx.upstream then
    return -- the edge's own answer
  end
  if not is_sound() then
    return ngx.exit(502)
  end
  local header = ngx.header
  local cookies = header["Set-Cookie"]
  if not cookies then
    return
  end
  local kept = {}
  for _, cookie in ipairs(type(cookies) == "table" and cookies or { cookies }) do
    if not is_ours(cookie) then
      kept[#kept + 1] = for_this_host(cookie)
    end
  end
  header["Set-Cookie"] = kept
end)

return preview
