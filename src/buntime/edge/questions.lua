-- Asks the control plane, over its socket: about previews, and what other files want to know. Runs in nginx's workers.
--
-- nginx's master loads this file once with a table of settings (see `nginx.py`).

local semaphore = require "ngx.semaphore"

local answers = require "answers"

local settings = ...

local CONNECT_MS, ANSWER_MS = 2000, 35000 -- an answer may wait while a session wakes
local KEPT_MS, KEPT = 60000, 64 -- connections to the control plane, which keeps them for 75 s

local lower, gsub = string.lower, string.gsub

local asking = {} -- permission's key -> the question under way in this worker

local questions = {}

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

-- The control plane's answer to a question, or nil if there is none. `most_ms`: for each step of it, and it is
-- sent once.
function questions.send(bytes, most_ms)
  local again
  repeat
    local sock = ngx.socket.tcp()
    sock:settimeouts(most_ms or CONNECT_MS, most_ms or CONNECT_MS, most_ms or ANSWER_MS)
    if not sock:connect(settings.socket, { pool_size = KEPT }) then
      return nil
    end
    -- The control plane may just be closing a kept connection, so try once more.
    again = not again and not most_ms and sock:getreusedtimes() > 0
    local answer = sock:send(bytes) and answers.read(sock)
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

local function ask(path, host, token, cookie)
  return questions.send(question(path, host, token, cookie))
end

-- A permission names the session's address, or the host that has the session.
function questions.is_permission(answer)
  return answer.status == 200 and (answer.headers["x-upstream"] or answer.headers["x-peer"]) ~= nil
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
