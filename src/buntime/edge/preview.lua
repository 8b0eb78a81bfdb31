-- Previews: who may reach which session, asked of the control plane. Runs in nginx's workers.
--
-- Loaded once by nginx's master with a table of settings (see `nginx.py`); returns the functions of the phases.

local balancer = require "ngx.balancer"

local questions = require "questions"

local settings = ...

local LONGEST_TOKEN = 256 -- ours are shorter; a longer one is asked about, but never remembered

local permissions, counts = ngx.shared.permissions, ngx.shared.counts
local find, lower, match, gmatch, gsub = string.find, string.lower, string.match, string.gmatch, string.gsub

-- Counting per client, in windows of a second.

local function client()
  local address = ngx.var.binary_remote_addr
  return #address == 16 and address:sub(1, 8) or address -- of IPv6 everybody has 2^64
end

local function count(kind)
  return counts:incr(kind .. client(), 1, 0, 1) or 0
end

local function too_many_refusals()
  return (counts:get("refused" .. client()) or 0) >= settings.refusals
end

-- Giving answers to the client.

local NOT_PASSED = {
  ["connection"] = true, ["content-length"] = true, ["date"] = true, ["keep-alive"] = true, ["server"] = true,
  ["transfer-encoding"] = true, ["x-cache"] = true, ["x-request-id"] = true, ["x-upstream"] = true, ["x-uri"] = true,
}

-- nginx takes what does not begin like HTTP for an answer of HTTP 0.9, and from then on writes no header itself.
local function is_headless()
  return ngx.req.http_version() == 0.9 and ngx.var.http2 == ""
end

local function headless(status, body)
  local head = "HTTP/1.1 " .. status .. " Refused\r\nConnection: close\r\nContent-Length: " .. #body .. "\r\n"
  for name, value in pairs(ngx.resp.get_headers()) do
    if not NOT_PASSED[name] then
      head = head .. name .. ": " .. value .. "\r\n"
    end
  end
  return head .. "\r\n" .. body
end

local function finish(status, body)
  if is_headless() then
    ngx.print(headless(status, body))
    return ngx.exit(ngx.HTTP_OK)
  end
  ngx.status = status
  ngx.header["X-Request-Id"] = ngx.var.rid
  ngx.header["Content-Length"] = #body
  ngx.req.discard_body() -- or what is left of it would be read as the next request
  ngx.print(body)
  return ngx.exit(ngx.HTTP_OK)
end

local function give(answer)
  for name, values in pairs(answer.headers) do
    if not NOT_PASSED[name] then
      ngx.header[name] = #values == 1 and values[1] or values
    end
  end
  return finish(answer.status, answer.body)
end

-- A refusal of the edge's own: a page for browsers, the API's error for others.
local function refuse(status)
  local refusal = settings.pages[status] or settings.pages[500]
  local header = ngx.header
  header["Cache-Control"] = "no-store"
  header["Retry-After"] = refusal.retry_after
  if find(ngx.var.http_accept or "", "text/html", 1, true) then
    header["Content-Type"] = "text/html; charset=utf-8"
    header["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
    return finish(refusal.status, refusal.page)
  end
  header["Content-Type"] = "application/json"
  return finish(refusal.status, refusal.error)
end

-- What clients send.

-- The value of our cookie, and what the session may see of the header.
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

-- Whether the Host header names the host that nginx chose the server by: in an absolute target it may be another.
local function is_one_host(host, chosen)
  local name = match(host, "^([%w_.-]+):?%d*$")
  return name == chosen or name == chosen .. "."
end

-- Permissions.

-- The session's address, or nil after the client was given its refusal.
local function heed(answer, key)
  if not questions.is_permission(answer) then
    if answer.status == 401 or answer.status == 403 or answer.status == 404 then
      count("refused")
    end
    give(answer)
    return nil
  end
  local upstream = answer.headers["x-upstream"][1]
  local uri = answer.headers["x-uri"]
  if uri then
    ngx.var.session_uri = uri[1] -- it hung on this very address: nothing to remember
    return upstream
  end
  local seconds = tonumber((answer.headers["x-cache"] or {})[1]) or 0
  if key and seconds > 0 then
    permissions:set(key, upstream, math.min(seconds, settings.permission_seconds))
  end
  return upstream
end

-- The phases.

local preview = {}

-- Errors of sessions are not logged (see `nginx.py`), those of this program are.
local function logged(phase)
  return function()
    local ok, failed = xpcall(phase, debug.traceback)
    if not ok then
      ngx.log(ngx.CRIT, failed)
      return ngx.exit(500)
    end
  end
end

-- access: finds the session, or answers.
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
    local upstream = permissions:get(key)
    if upstream then
      ngx.ctx.upstream = upstream
      return
    end
  end
  if too_many_refusals() or count("asked") > settings.questions then
    return refuse(429)
  end
  local answer = questions.admit(key, host, token, cookie)
  if not answer then
    return refuse(503)
  end
  ngx.ctx.upstream = heed(answer, key)
end)

-- balancer: connects.
preview.connect = logged(function()
  local set, reason = balancer.set_current_peer(ngx.ctx.upstream)
  if not set then
    ngx.log(ngx.CRIT, "not an address of a session: ", reason)
    return ngx.exit(500)
  end
  balancer.enable_keepalive(settings.kept_seconds, settings.kept_requests)
end)

-- content, where the session could not be reached or gave no valid answer.
function preview.nothing()
  local var = ngx.var
  if find(var.upstream_connect_time or "-", "%d$") then
    return refuse(502)
  end
  if count("nothing") > settings.refusals then
    return refuse(429)
  end
  local answer = questions.nothing(lower(var.http_host), var.http_x_preview_token, (take_cookie(var)))
  if not answer then
    return refuse(503)
  end
  return give(answer)
end

-- content, for what nginx refuses by itself.
function preview.refuse()
  return refuse(ngx.status)
end

-- Whether a browser would send it as a cookie of ours. One without a name is sent as its value alone.
local function is_ours(cookie)
  return match(lower(cookie), "^[%s=]*([^%s=;]*)") == settings.cookie
end

-- Whether the answer is one: not of HTTP 0.9, nor an interim one, which this nginx would take for the last one.
local function is_sound()
  local status = ngx.status
  return ngx.req.http_version() >= 1.0 and (status >= 200 or status == 101 and ngx.var.session_upgrade ~= "")
end

-- What a session's Set-Cookie becomes, so that it is for this host alone; nil where it must not pass.
--
-- A browser ends the value at the first semicolon, also within quotes; other clients take a quoted one as a whole. Where
-- they disagree nothing is taken out of the middle: it would change the value for one of them. One such client also
-- begins an attribute after a space, and knows `$Domain`.
local function for_this_host(cookie)
  local pair, rest = match(cookie, "^([^;]*)(.*)$")
  local kept, found = { pair }, false
  for attribute in gmatch(rest, ";([^;]*)") do
    local name = gsub(match(attribute, "^[^=]*"), "[^!-~]", "") -- what clients take for spaces differs
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

-- header filter: of what the session answers.
preview.filter = logged(function()
  if not ngx.ctx.upstream then
    return -- an answer of ours
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
