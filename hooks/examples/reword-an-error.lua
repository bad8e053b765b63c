-- What the client reads when the box does not answer; "overloaded" makes it try again by itself.
-- A wrong key or a request that is too long it reads as it is.
return {
  api = 1,
  on_error = function(err)
    if err.status == 502 then
      return { status = 529, message = "The box " .. err.upstream .. " is off or starting: wait a minute." }
    end
  end,
}
