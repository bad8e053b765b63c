-- What the client reads when the box does not answer; "overloaded" makes it try again by itself.
return {
  api = 1,
  on_error = function(err)
    if err.status == 502 then
      return { status = 529, message = "The box " .. err.upstream .. " is off or starting: wait a minute." }
    end
  end,
}
