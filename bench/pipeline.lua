-- For wrk: sends requests in batches, `wrk -s pipeline.lua URL -- SIZE`.

function init(args)
    batch = string.rep(wrk.format(), tonumber(args[1]))
end

function request()
    return batch
end
