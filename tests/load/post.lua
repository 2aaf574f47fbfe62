-- One sparse record a request: what wrk sends; with a number behind the address, so many a second.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"instances":[{"data":{"features":{"keys":[26,182,232,243,431],"shape":[2625],"values":[1,1,1,4,1]}}}]}'

function init(args)
   local rate = tonumber(args[1])
   if not rate then return end
   local ffi = require("ffi")
   ffi.cdef [[ struct moment { long s; long ns; }; int clock_gettime(int, struct moment *); ]]
   local moment, due = ffi.new("struct moment"), 0
   -- Milliseconds until the next request is due; one that is late goes at once, and what was missed is made up.
   function delay()
      ffi.C.clock_gettime(1, moment)
      local now = 1e3 * tonumber(moment.s) + 1e-6 * tonumber(moment.ns)
      due = due == 0 and now or due + 1e3 / rate
      return math.max(0, math.floor(due - now + 0.5))
   end
end
