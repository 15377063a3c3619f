# Calls one function of Julia code with values that dm wrote into a file (SCHEMA.md, "Other languages").
#
# Run by dm/plumbing/transport/runtimes.py; the file's path is in DATAMANIFEST_CALL. No value is ever part of the code,
# and Julia's Base is all that is needed. The exit status says what went wrong: 81, the function cannot be had; 82, it
# failed. The code that is called lives in Main, this in a module of its own.
module DatamanifestCall

decode(text) = replace(replace(replace(text, "%0A" => "\n"), "%0D" => "\r"), "%25" => "%")

function read_value(lines)
    line = popfirst!(lines)
    kind, text = line[1], line[nextind(line, 1):end]
    kind == 's' && return String(decode(text))
    kind == 'i' && return parse(Int64, text)
    kind == 'f' && return parse(Float64, text)
    kind == 'b' && return text == "1"
    kind == 'l' && return [value for value in Any[read_value(lines) for _ in 1:parse(Int, text)]]
    kind == 't' || error("dm wrote a value of an unknown kind: $kind")
    table = Dict{String,Any}()
    for _ in 1:parse(Int, text)
        name = read_value(lines)
        table[name] = read_value(lines)
    end
    return table
end

function finish(status, failure)
    flush(stdout)
    println(stderr)
    println(stderr, replace(failure, r"[\r\n]+\s*" => " "))
    exit(status)
end

function find_function(call)
    names = Symbol.(split(call["name"], '.'))
    if haskey(call, "file")
        Base.include(Main, call["file"])
        # A file that holds a module of its own name: the function is in that.
        inner = Symbol(splitext(basename(call["file"]))[1])
        place = Main
        if Base.invokelatest(isdefined, Main, inner)
            candidate = Base.invokelatest(getfield, Main, inner)
            candidate isa Module && (place = candidate)
        end
    else
        modules = Symbol.(split(call["module"], '.'))
        place = Base.require(Main, first(modules))
        names = [modules[2:end]; names]
    end
    found = foldl((value, name) -> Base.invokelatest(getfield, value, name), names; init = place)
    return found
end

function list_keywords(found)
    named = Symbol[]
    for method in methods(found)
        append!(named, Base.kwarg_decl(method))
    end
    return named
end

function call_function(found, call)
    if call["explicit"]
        keywords = Pair{Symbol,Any}[Symbol(name) => value for (name, value) in call["kwargs"]]
        return Base.invokelatest(found, call["args"]...; keywords...)
    end
    named = Base.invokelatest(list_keywords, found)
    takes_all = any(name -> endswith(String(name), "..."), named)
    keywords = Pair{Symbol,Any}[
        Symbol(name) => value for (name, value) in call["context"] if takes_all || Symbol(name) in named
    ]
    path = call["download_path"]
    :download_path in named && return Base.invokelatest(found; download_path = path, keywords...)
    return Base.invokelatest(found, path; keywords...)
end

function run()
    call = read_value(readlines(ENV["DATAMANIFEST_CALL"]))
    found = try
        find_function(call)
    catch failure
        failure isa InterruptException && rethrow()
        finish(81, sprint(showerror, failure))
    end
    try
        call_function(found, call)
    catch failure
        failure isa InterruptException && rethrow()
        showerror(stderr, failure, catch_backtrace())
        finish(82, sprint(showerror, failure))
    end
end

end

DatamanifestCall.run()
