//! The steps of a body.

/// The next step: a place in the table, or [`END`].
pub(in super::super) type Next = u8;

/// The body is complete.
pub(in super::super) const END: Next = u8::MAX;

/// The use of the text that a step reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Keep {
    /// The name of a tool. It must be offered, otherwise the text is not a call.
    Name,
    /// The name of an argument.
    Key,
    /// The value of an argument, to which the schema gives a type.
    Text,
    /// The same, with one newline at each end that belongs to the form.
    Lines,
    /// The value of an argument that is a string whatever the schema says.
    Exact,
    /// The value of an argument in Python.
    Python,
    /// The arguments as a JSON object.
    Arguments,
    /// A call as a JSON object, or several as an array of such.
    Calls,
    /// Text without a use, such as an id.
    Nothing,
}

/// One step of a body.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Step {
    /// One of these words, behind any white space.
    Words(&'static [(&'static str, Next)]),
    /// Text up to one of these words. A word `{` is not consumed: the next step begins with it.
    Until(Keep, &'static [(&'static str, Next)]),
    /// One JSON value, behind any white space, with the bytes that it may begin with.
    Json(Keep, &'static [u8], Next),
    /// One Python value, behind any white space.
    Python(Next),
}
