-- Rewords the error that a client gets when the box does not answer; status 529, "overloaded", makes it try again.
-- Other errors, such as a request that is too long, stay as they are.
return {
  api = 1,
  on_error = function(err)
    if err.status == 502 then
      return { status = 529, message = "The box " .. err.upstream .. " is off or starting: wait a minute." }
    end
  end,
}
