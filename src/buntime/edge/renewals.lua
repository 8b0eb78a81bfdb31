-- Renews permissions that are in use, many with one question. Runs in nginx's workers.
--
-- A permission lasts for a second. Without this, a session that gets a few requests a second would cause a question for
-- nearly each of them. A request that finds a permission in the second half of its time has it renewed in the
-- background. So has one that asks for a permission soon after the last one. The control plane wakes and waits for
-- nothing then: what it does not renew ends, and the next request asks as usual. A renewal changes nothing but the time
-- at which a permission ends.
--
-- nginx's master loads this file once with a table of settings (see `nginx.py`).

local questions = require "questions"

local settings = ...

local HALF = settings.permission_seconds / 2
local AGAIN = 0.8 * HALF -- seconds before one permission is asked about again, whatever the answer was
local WAIT = 0.1 -- seconds in which more permissions join the question
local ANSWER_MS = 300
local MOST = 100 -- in one question; the control plane serves nobody else while it looks at them
local MOST_DUE = 1000 -- further ones are not renewed
local REGULAR = 2 -- seconds between two questions about one permission, at most, if it is used regularly
local SHORTEST = 0.01 -- seconds; for the dictionary, less than a millisecond is for ever

local permissions, given = ngx.shared.permissions, ngx.shared.given
local find, gmatch, abs, min = string.find, string.gmatch, math.abs, math.min

-- Of this worker. Keys are HOST \0 TOKEN \0 COOKIE.
local due, count = {}, 0
local asking_until = 0 -- a question is being prepared or is under way
local asked, asked_before, turned_at = {}, {}, 0 -- key -> when it was last put into a question
local young, ageing_until = {}, 0 -- keys that are renewed in a while

local renewals = {}

local function ask(keys)
  local body = table.concat(keys, "\n")
  local head = "POST /renew HTTP/1.1\r\nHost: edge\r\nContent-Length: " .. #body .. "\r\n\r\n"
  local began = ngx.now()
  local answer = questions.send(head .. body, ANSWER_MS)
  -- from before the question, so that a permission that is withdrawn meanwhile ends in time
  local left = min(settings.permission_seconds - (ngx.now() - began), settings.permission_seconds)
  if not answer or answer.status ~= 200 or left < SHORTEST then
    return
  end
  local place = 0
  for upstream in gmatch(answer.body, "([^\n]*)\n") do
    place = place + 1
    local key = keys[place]
    if key and upstream ~= "" and permissions:get(key) == upstream then
      permissions:replace(key, upstream, left)
    end
  end
end

local function renew(is_stopping)
  repeat
    local keys, began = due, ngx.now()
    due, count = {}, 0
    for first = 1, #keys, MOST do
      if is_stopping or ngx.now() - began > HALF then
        break -- the rest ends
      end
      asking_until = ngx.now() + 2 -- longer than a question takes
      local ok, failed = pcall(ask, { unpack(keys, first, min(first + MOST - 1, #keys)) })
      if not ok then
        ngx.log(ngx.CRIT, failed)
      end
    end
  until count == 0
  asking_until = 0
end

-- Whether it can be renewed at all. The permissions of other hosts, ID@ADDRESS, are not.
local function can_be_renewed(key, upstream)
  return not find(upstream, "@", 1, true) and not find(key, "[\1-\31]")
end

local function was_asked_just_now(key)
  local now = ngx.now()
  if abs(now - turned_at) > HALF then
    asked, asked_before, turned_at = {}, asked, now
  end
  return abs(now - (asked[key] or asked_before[key] or 0)) <= AGAIN
end

-- Whether a permission that is about to be used should be renewed.
function renewals.is_due(key, upstream)
  local left = permissions:ttl(key)
  return left and left <= HALF and count < MOST_DUE and can_be_renewed(key, upstream) and not was_asked_just_now(key)
end

-- Has a permission renewed that is due.
function renewals.add(key)
  local now = ngx.now()
  count = count + 1
  due[count], asked[key] = key, now
  if now < asking_until then
    return -- it comes next
  end
  if ngx.timer.at(WAIT, renew) then
    asking_until = now + 2
  else
    due, count = {}, 0
  end
end

-- In a timer: has permissions renewed that are HALF / 2 to HALF seconds old.
local function age(is_stopping, older)
  for _, key in ipairs(older) do
    if count < MOST_DUE and permissions:get(key) and not was_asked_just_now(key) then
      renewals.add(key)
    end
  end
  older, young = young, {}
  if not is_stopping and #older > 0 and ngx.timer.at(HALF / 2, age, older) then
    ageing_until = ngx.now() + 2 * HALF
  else
    ageing_until = 0
  end
end

-- Remembers a permission that the control plane has just given. If it gave the last one a short time ago, requests come
-- about once a second, and this one will be renewed before the next request.
function renewals.remember(key, upstream, seconds)
  permissions:set(key, upstream, seconds)
  if not can_be_renewed(key, upstream) then
    return
  end
  local is_regular = given:get(key)
  given:set(key, true, REGULAR)
  if not is_regular or #young >= MOST_DUE then
    return
  end
  young[#young + 1] = key
  if ngx.now() > ageing_until and ngx.timer.at(HALF / 2, age, {}) then
    ageing_until = ngx.now() + 2 * HALF
  end
end

return renewals
