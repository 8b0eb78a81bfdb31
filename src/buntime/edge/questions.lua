-- Asks the control plane about previews, over its socket. Runs in nginx's workers.
--
-- nginx's master loads this file once with a table of settings (see `nginx.py`). An answer has a status, headers
-- (lower-case name -> list of values) and a body.

local semaphore = require "ngx.semaphore"

local settings = ...

local CONNECT_MS, ANSWER_MS = 2000, 35000 -- an answer may wait while a session wakes
local KEPT_MS, KEPT = 60000, 64 -- connections to the control plane, which keeps them for 75 s
local MOST_HEADERS, LARGEST_BODY = 64, 65536 -- of an answer

local lower, match, gsub = string.lower, string.match, string.gsub

local asking = {} -- permission's key -> the question under way in this worker

local questions = {}

-- nil if the connection breaks or the answer is malformed.
local function read_answer(sock)
  local line = sock:receive("*l")
  local status = line and tonumber(match(line, "^HTTP/1%.1 (%d%d%d) ?"))
  if not status then
    return nil
  end
  local headers = {}
  for _ = 1, MOST_HEADERS do
    line = sock:receive("*l")
    if line == "" then
      local length = headers["content-length"]
      length = length and #length == 1 and match(length[1], "^%d+$") and tonumber(length[1])
      if not length or length > LARGEST_BODY or headers["transfer-encoding"] then
        return nil
      end
      local body = length == 0 and "" or sock:receive(length)
      return body and { status = status, headers = headers, body = body }
    end
    local name, value = match(line or "", "^([%w-]+):[ \t]*(.-)[ \t]*$")
    if not name then
      return nil
    end
    name = lower(name)
    headers[name] = headers[name] or {}
    table.insert(headers[name], value)
  end
  return nil
end

local function question(path, host, token, cookie)
  local var = ngx.var
  local lines = { "GET " .. path .. " HTTP/1.1", "Host: edge" }
  local function add(name, value)
    if value then
      lines[#lines + 1] = name .. ": " .. gsub(value, "%c", " ")
    end
  end
  add("X-Preview-Host", host)
  add("X-Preview-Method", ngx.req.get_method())
  add("X-Preview-Uri", var.request_uri)
  add("X-Preview-Token", token)
  add("X-Preview-Cookie", cookie)
  add("X-Preview-Address", var.remote_addr)
  add("X-Preview-Accept", var.http_accept)
  add("X-Preview-Upgrade", var.session_upgrade ~= "" and "1" or nil)
  add("X-Request-Id", var.rid)
  return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

-- The control plane's answer, or nil if there is none.
local function ask(path, host, token, cookie)
  local bytes = question(path, host, token, cookie)
  local again
  repeat
    local sock = ngx.socket.tcp()
    sock:settimeouts(CONNECT_MS, CONNECT_MS, ANSWER_MS)
    if not sock:connect(settings.socket, { pool_size = KEPT }) then
      return nil
    end
    -- The control plane may just be closing a kept connection, so try once more.
    again = not again and sock:getreusedtimes() > 0
    local answer = sock:send(bytes) and read_answer(sock)
    if answer then
      local closing = answer.headers["connection"]
      if closing and lower(closing[1]) == "close" then
        sock:close()
      else
        sock:setkeepalive(KEPT_MS)
      end
      return answer
    end
    sock:close()
  until not again
  return nil
end

function questions.is_permission(answer)
  return answer.status == 200 and answer.headers["x-upstream"] ~= nil
end

-- Whether all requests that wait for the same question may share the answer: a permission, or "not ready".
local function is_for_all(answer)
  return answer == nil or answer.status == 503 or (questions.is_permission(answer) and answer.headers["x-cache"] ~= nil
    and answer.headers["x-cache"][1] ~= "0" and not answer.headers["x-uri"])
end

-- Asks one question at a time per key and worker: a thousand requests that wait for one wake are one question.
function questions.admit(key, host, token, cookie)
  local other = key and asking[key]
  if other and other.ends > ngx.now() then
    other.waiting = other.waiting + 1
    if other.done:wait(ANSWER_MS / 1000) and is_for_all(other.answer) then
      return other.answer
    end
    return ask("/admit", host, token, cookie)
  end
  if not key then
    return ask("/admit", host, token, cookie)
  end
  local mine = { done = semaphore.new(0), waiting = 0, ends = ngx.now() + 2 * ANSWER_MS / 1000 }
  asking[key] = mine
  local ok, answer = pcall(ask, "/admit", host, token, cookie)
  mine.answer = ok and answer or nil
  if not ok then -- logged here, because the waiting requests must go on
    ngx.log(ngx.CRIT, answer)
  end
  if asking[key] == mine then
    asking[key] = nil
  end
  if mine.waiting > 0 then
    mine.done:post(mine.waiting)
  end
  return mine.answer
end

-- The answer for a request that was admitted but reached no server; nil if the control plane does not answer.
function questions.nothing(host, token, cookie)
  return ask("/nothing", host, token, cookie)
end

return questions
