-- Carries the bodies of large files between the client and the session's guest, past the control plane.
--
-- The control plane gets the request without its body, and answers it, or gives a ticket (see `web/handover.py`). Its
-- connection stays open until the request has ended, which a timer does: it can hold a socket for longer than a phase.
-- nginx itself moves the bytes. What the guest sends is hostile: of its answer, only the bytes pass, and only as many as
-- the control plane has announced. Runs in nginx's workers.

local semaphore = require "ngx.semaphore"

local answers = require "answers"

local settings = ...

local CONNECT_MS, ANSWER_MS = 2000, 35000 -- an answer may wait while a session wakes …
local FINAL_MS = 3700000 -- … and the last one until a file is in its place, or an archive is unpacked
local TURN = 3600 -- seconds of one wait
-- Headers of the client that are not for the control plane, or that the edge sets itself.
local OWN = {
  ["connection"] = true, ["content-length"] = true, ["expect"] = true, ["forwarded"] = true, ["host"] = true,
  ["keep-alive"] = true, ["te"] = true, ["transfer-encoding"] = true, ["upgrade"] = true, ["x-body-length"] = true,
  ["x-buntime-hops"] = true, ["x-buntime-next"] = true, ["x-buntime-peer"] = true, ["x-buntime-where"] = true,
  ["x-forwarded-for"] = true, ["x-forwarded-host"] = true, ["x-forwarded-port"] = true, ["x-forwarded-proto"] = true,
  ["x-real-ip"] = true, ["x-request-id"] = true,
}
local OF_THE_CONNECTION = { ["connection"] = true, ["date"] = true, ["transfer-encoding"] = true }

local PATHS = { ["/files/content"] = true, ["/files/archive"] = true }

local lower, match, gsub = string.lower, string.match, string.gsub

local requests = {} -- number -> a request of this worker whose answer is not complete
local last = 0

local bodies = {}

-- The question.

-- Whether the body can be large, and nginx can pass it on as it is: of a stated length, or from a session. The path must
-- be what the client sent: the control plane gets that in all other cases.
local function may_be_large(var)
  local length = var.http_content_length
  if var.http_transfer_encoding or not PATHS[match(var.request_uri, "^[^?]*")] then
    return false
  end
  if ngx.req.get_method() == "PUT" then
    return match(length or "", "^%d+$") and #length <= 15 and tonumber(length) >= settings.least
  end
  return ngx.req.get_method() == "GET" and (length == nil or length == "0")
end

-- The request as the control plane gets it: its header, with `more`, and the length of its body.
local function head_of(more)
  local var = ngx.var
  local lines = { ngx.req.get_method() .. " " .. var.request_uri .. " HTTP/1.1" }
  local function add(name, value)
    if value then
      lines[#lines + 1] = name .. ": " .. gsub(value, "%c", " ")
    end
  end
  for name, values in pairs(ngx.req.get_headers(0, true)) do
    if not OWN[lower(name)] then
      for _, value in ipairs(type(values) == "table" and values or { values }) do
        add(name, type(value) == "string" and value or "")
      end
    end
  end
  add("Host", var.http_host or "edge")
  add("X-Request-Id", var.rid)
  add("X-Forwarded-For", var.remote_addr)
  add("X-Forwarded-Proto", var.client_scheme or var.scheme)
  add("X-Forwarded-Host", var.http_host)
  add("X-Real-IP", var.remote_addr)
  add("X-Buntime-Hops", var.hops ~= "" and var.hops or nil)
  add("X-Body-Length", var.http_content_length)
  for name, value in pairs(more) do
    add(name, value)
  end
  return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

-- The connection to the control plane, in a timer.

local function ended(sock, request)
  while not request.over:wait(TURN) do end
  if request.how == "left" then
    return nil
  end
  if not sock:send(request.how == "carried" and "0\r\n\r\n" or "1\r\n-\r\n0\r\n\r\n") then
    return nil
  end
  sock:settimeouts(CONNECT_MS, CONNECT_MS, FINAL_MS)
  local size = sock:receive("*l") -- of a chunk that is the whole answer
  return size and size ~= "0" and answers.read(sock) or nil
end

local function hold(premature, request)
  local sock = ngx.socket.tcp()
  sock:settimeouts(CONNECT_MS, CONNECT_MS, ANSWER_MS)
  if not premature and sock:connect(settings.socket) and sock:send(request.question) then
    request.answer = answers.read(sock)
  end
  request.told:post(1)
  if request.answer and request.answer.headers["x-body-address"] then
    request.final = ended(sock, request)
    request.told:post(1)
  end
  sock:close()
end

local function end_of(request, how)
  if not request.how then
    request.how = how
    request.over:post(1)
  end
end

-- A question without a body about a request, for other files.
bodies.question = head_of

-- The functions of the phases.

local function is_address(text)
  return match(text, "^%d+%.%d+%.%d+%.%d+:%d+$")
end

-- access phase: answers, or passes the request on to the guest; otherwise the control plane gets it as it is.
function bodies.ask()
  local var = ngx.var
  if not may_be_large(var) then
    return
  end
  local question = head_of({ ["Transfer-Encoding"] = "chunked" }) -- its body says how it went
  local request = { question = question, told = semaphore.new(0), over = semaphore.new(0) }
  if not ngx.timer.at(0, hold, request) then
    return
  end
  last = last + 1
  requests[last] = request
  var.body_number = last
  request.told:wait(2 * ANSWER_MS / 1000)
  local answer = request.answer
  if not answer or answer.headers["x-body-back"] then
    return
  end
  local headers = answer.headers
  if headers["x-peer"] then
    return require("carrying").carry(answer)
  end
  if not headers["x-body-address"] then
    return answers.give(answer)
  end
  request.length = headers["x-body-length"] and headers["x-body-length"][1] -- nil: the end of the chunks says it
  var.body_address, var.body_ticket = headers["x-body-address"][1], headers["x-body-ticket"][1]
  if not is_address(var.body_address) or not match(var.body_ticket, "^%x+$") then
    return ngx.exit(500)
  end
  return ngx.exec("@body")
end

-- header filter phase of the guest's answer: puts ours in its place.
function bodies.filter()
  local request = requests[tonumber(ngx.var.body_number)]
  if not request or request.how then
    return -- it is ours
  end
  local is_sound = ngx.req.get_method() == "GET" and ngx.status == 200 and ngx.req.http_version() >= 1.0
  -- Our guest sends no type. Of another's, nginx would keep the character set.
  if not is_sound or ngx.header["Content-Type"] or ngx.header["Content-Length"] ~= request.length then
    request.is_unsound = true
    return ngx.exit(502)
  end
  local header, answer = ngx.header, request.answer
  for name in pairs(ngx.resp.get_headers(0)) do
    if name ~= "content-length" and name ~= "connection" then
      header[name] = nil
    end
  end
  for name, values in pairs(answer.headers) do
    if not OF_THE_CONNECTION[name] and not match(name, "^x%-body%-") then
      header[name] = #values == 1 and values[1] or values
    end
  end
  ngx.status = answer.status
end

-- content phase: the guest has taken the body, or could not be reached, or gave no sound answer. After an exit from the
-- header filter phase, this must not wait.
function bodies.answer()
  local request = requests[tonumber(ngx.var.body_number)]
  if request and not request.is_unsound then
    end_of(request, ngx.req.get_method() == "PUT" and "carried" or "refused")
    request.told:wait(2 * FINAL_MS / 1000)
    if request.final then
      return answers.give(request.final)
    end
  end
  ngx.header["Content-Type"] = "application/json"
  ngx.header["Retry-After"] = 1
  return answers.finish(503, settings.refusal)
end

-- log phase: the request has ended.
function bodies.ended()
  local number = tonumber(ngx.var.body_number)
  local request = requests[number]
  if not request then
    return
  end
  requests[number] = nil
  local has_all = not request.length or ngx.var.upstream_response_length == request.length
  local is_whole = has_all and ngx.var.request_completion == "OK"
  end_of(request, is_whole and ngx.req.get_method() == "GET" and "carried" or "left")
end

return bodies
