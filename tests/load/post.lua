-- One sparse record a request: what wrk sends.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"instances":[{"data":{"features":{"keys":[26,182,232,243,431],"shape":[2625],"values":[1,1,1,4,1]}}}]}'
