-- Counts callers of the API. The requests of an address are limited (see `nginx.py`), except those with a key that was
-- valid a moment ago and within its rate: the control plane limits those by plan. Runs in nginx's workers.

local SECONDS = 60 -- how long a valid key is remembered; the control plane still checks it each time
local LONGEST = 256 -- bytes of the header; real keys are shorter

local good = ngx.shared.callers

local callers = {}

-- The name of a key in the dictionary, which is not the key itself.
local function name_of(authorization)
  return authorization and #authorization <= LONGEST and ngx.sha1_bin(authorization) or nil
end

-- rewrite phase: sets whom this request counts for. An empty variable means that it does not count.
function callers.count()
  local name = name_of(ngx.var.http_authorization)
  ngx.var.counted = name and good:get(name) and "" or ngx.var.source
end

-- header filter phase: only an answer to a valid key says how many requests it has left.
function callers.learn()
  local name = name_of(ngx.var.http_authorization)
  local told = ngx.header["X-RateLimit-Remaining"]
  if not name or not (told or ngx.var.upstream_status or ngx.ctx.is_given) then
    return -- a refusal of the edge's own
  end
  local left = tonumber(told or "") or 0
  if left > 0 and ngx.status ~= 429 then
    good:set(name, true, SECONDS)
  else
    good:delete(name)
  end
end

return callers
