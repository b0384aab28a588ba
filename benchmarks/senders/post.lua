-- wrk posts the ready-made bodies of a file, one a line, in rotation; an answer that is not 200 is counted apart.
local bodies, at, threads = {}, 0, {}

function setup(thread)
    table.insert(threads, thread)
end

function init(arguments)
    wrong = 0
    for line in io.lines(arguments[1]) do
        bodies[#bodies + 1] = wrk.format("POST", "/events", {
            ["Authorization"] = arguments[2], ["Content-Type"] = "application/json", ["Host"] = wrk.host,
        }, line)
    end
end

function request()
    at = at % #bodies + 1
    return bodies[at]
end

function response(status)
    if status ~= 200 then
        wrong = wrong + 1
    end
end

function done(summary, latency, requests)
    local wrongs = 0
    for _, thread in ipairs(threads) do
        wrongs = wrongs + thread:get("wrong")
    end
    local errors = summary.errors
    print(string.format('{"requests": %d, "wrong": %d, "errors": %d, "wall_s": %.4f}', summary.requests, wrongs,
        errors.connect + errors.read + errors.write + errors.timeout, summary.duration / 1e6))
end
