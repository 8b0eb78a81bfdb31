-- Answers that the edge sends itself. Runs in nginx's workers.
--
-- An answer has a status, headers (lower-case name -> list of values) and a body.

local answers = {}

local MOST_HEADERS, LARGEST_BODY = 64, 1048576 -- of an answer
local lower, match = string.lower, string.match

-- An answer from a socket; nil if the connection breaks or the answer is malformed. A body that the edge carries itself
-- (see bodies.lua) is not read.
function answers.read(sock)
  local line = sock:receive("*l")
  local status = line and tonumber(match(line, "^HTTP/1%.1 (%d%d%d) ?"))
  if not status then
    return nil
  end
  local headers = {}
  for _ = 1, MOST_HEADERS do
    line = sock:receive("*l")
    if line == "" then
      if headers["x-body-address"] then
        return { status = status, headers = headers, body = "" }
      end
      if status == 304 or status == 204 then
        return { status = status, headers = headers, body = "" }
      end
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

-- What the client asks on condition. The control plane has judged it, and nginx would judge it again.
local CONDITIONS = { "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since" }

local NOT_PASSED = {
  ["connection"] = true, ["content-length"] = true, ["date"] = true, ["keep-alive"] = true, ["server"] = true,
  ["transfer-encoding"] = true, ["x-cache"] = true, ["x-request-id"] = true,
  ["x-body-address"] = true, ["x-body-length"] = true, ["x-body-ticket"] = true, ["x-upstream"] = true, ["x-uri"] = true,
}

-- nginx treats an answer that does not begin like HTTP as HTTP 0.9, and then writes no header itself.
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

function answers.finish(status, body)
  if is_headless() then
    ngx.print(headless(status, body))
    return ngx.exit(ngx.HTTP_OK)
  end
  ngx.status = status
  ngx.header["X-Request-Id"] = ngx.var.rid
  ngx.header["Content-Length"] = status ~= 304 and #body or nil
  for _, name in ipairs(CONDITIONS) do
    ngx.req.clear_header(name)
  end
  ngx.req.discard_body() -- otherwise the rest of the body would be read as the next request
  ngx.print(body)
  return ngx.exit(ngx.HTTP_OK)
end

-- Passes on an answer of the control plane.
function answers.give(answer)
  ngx.ctx.is_given = true
  for name, values in pairs(answer.headers) do
    if not NOT_PASSED[name] then
      ngx.header[name] = #values == 1 and values[1] or values
    end
  end
  return answers.finish(answer.status, answer.body)
end

return answers
