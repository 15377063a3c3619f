# Calls one function of R code with values that dm wrote into a file (SCHEMA.md, "Other languages").
#
# Run by dm/plumbing/transport/runtimes.py; the file's path is in DATAMANIFEST_CALL. No value is ever part of the code,
# and base R is all that is needed. The exit status says what went wrong: 81, the function cannot be had; 82, it failed.
# What the function's code defines and masks in the global environment does not reach in here.
local({
  options(warn = 1, keep.source = FALSE)

  lines <- readLines(Sys.getenv("DATAMANIFEST_CALL"), warn = FALSE)
  at <- 0L
  is_utf8 <- isTRUE(l10n_info()[["UTF-8"]])

  decode <- function(text) {
    # Bytes, not characters: a path need not be text, and in another locale its bytes are still the path's.
    for (escape in list(c("%0A", "\n"), c("%0D", "\r"), c("%25", "%"))) {
      text <- gsub(escape[[1L]], escape[[2L]], text, fixed = TRUE, useBytes = TRUE)
    }
    Encoding(text) <- if (is_utf8 && validUTF8(text)) "UTF-8" else "unknown"
    text
  }

  read_whole_number <- function(text) {
    number <- as.numeric(text)
    if (abs(number) <= .Machine$integer.max) as.integer(number) else number
  }

  simplify <- function(values) {
    kinds <- unique(vapply(values, function(value) if (is.list(value) || length(value) != 1L) "list" else
      if (is.numeric(value)) "numeric" else typeof(value), ""))
    if (length(kinds) == 1L && kinds != "list") unlist(values) else values
  }

  read_value <- function() {
    at <<- at + 1L
    kind <- substr(lines[[at]], 1L, 1L)
    text <- sub("^.", "", lines[[at]], useBytes = TRUE)
    switch(kind,
      s = decode(text),
      i = read_whole_number(text),
      f = as.numeric(text),
      b = text == "1",
      l = simplify(lapply(seq_len(as.integer(text)), function(position) read_value())),
      t = {
        size <- as.integer(text)
        names <- character(size)
        values <- vector("list", size)
        for (position in seq_len(size)) {
          names[[position]] <- read_value()
          values[[position]] <- read_value()
        }
        if (size > 0L) names(values) <- names
        values
      },
      stop("dm wrote a value of an unknown kind: ", kind)
    )
  }

  end <- function(status, message) {
    cat("\n", gsub("[\r\n]+[[:space:]]*", " ", message), "\n", sep = "", file = stderr())
    quit(save = "no", status = status, runLast = FALSE)
  }

  call <- read_value()

  find_function <- function() {
    if (!is.null(call[["file"]])) {
      source(call[["file"]], local = globalenv(), encoding = if (is_utf8) "UTF-8" else "unknown")
      found <- get0(call[["name"]], envir = globalenv(), mode = "function", inherits = FALSE)
      if (is.null(found)) stop("'", call[["file"]], "' defines no function '", call[["name"]], "'")
      return(found)
    }
    if (!requireNamespace(call[["module"]], quietly = TRUE)) {
      stop("there is no file '", call[["module"]], ".R' in the project and no R package '", call[["module"]], "'")
    }
    found <- getExportedValue(call[["module"]], call[["name"]])
    if (!is.function(found)) stop("'", call[["name"]], "' of R package '", call[["module"]], "' is no function")
    found
  }

  choose_arguments <- function(found) {
    if (isTRUE(call[["explicit"]])) return(c(as.list(call[["args"]]), as.list(call[["kwargs"]])))
    named <- names(formals(args(found)))
    context <- call[["context"]]
    if (!("..." %in% named)) context <- context[names(context) %in% named]
    path <- list(call[["download_path"]])
    if ("download_path" %in% named) names(path) <- "download_path"
    c(path, context)
  }

  tell_calls <- function(calls) {
    # The calls between ours and the one that failed, each on a line of its own.
    is_ours <- vapply(calls, function(call) identical(call[[1L]], quote(do.call)), NA)
    is_handler <- vapply(calls, function(call) identical(call[[1L]], quote(.handleSimpleError)), NA)
    last <- if (any(is_handler)) which(is_handler)[[1L]] - 1L else length(calls) - 1L
    first <- which(is_ours)[[1L]] + 2L
    if (last < first) return()
    for (call in calls[first:last]) cat("  in ", deparse(call, nlines = 1L)[[1L]], "\n", sep = "", file = stderr())
  }

  found <- tryCatch(find_function(), error = function(error) end(81L, conditionMessage(error)))
  tryCatch(
    withCallingHandlers(
      do.call(found, choose_arguments(found), quote = TRUE),
      error = function(error) tell_calls(sys.calls())
    ),
    error = function(error) end(82L, conditionMessage(error))
  )
  quit(save = "no", status = 0L)
}, envir = new.env(parent = baseenv()))
