-- Callers of the API. An address may send so many requests a second (see `nginx.py`), unless they carry a key that was
-- good a moment ago and is within its own rate: the control plane bounds those by their plan. Runs in nginx's workers.

local SECONDS = 60 -- that a good key is remembered; what it may do, the control plane decides each time
local LONGEST = 256 -- ours are shorter

local good = ngx.shared.callers

local callers = {}

-- What the dictionary knows a key by: not the key itself.
local function name_of(authorization)
  return authorization and #authorization <= LONGEST and ngx.sha1_bin(authorization) or nil
end

-- rewrite: whom this request is counted for; nobody where the variable is empty.
function callers.count()
  local name = name_of(ngx.var.http_authorization)
  ngx.var.counted = name and good:get(name) and "" or ngx.var.source
end

-- header filter: only an answer to a request with a good key says how many more it may send.
function callers.learn()
  local name = name_of(ngx.var.http_authorization)
  if not name or not ngx.var.upstream_status then
    return
  end
  local left = tonumber(ngx.header["X-RateLimit-Remaining"] or "") or 0
  if left > 0 and ngx.status ~= 429 then
    good:set(name, true, SECONDS)
  else
    good:delete(name)
  end
end

return callers
