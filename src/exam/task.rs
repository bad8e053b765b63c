//! A task, and the answer that passes it.

/// One task.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExamTask {
    /// Its name in the report.
    pub(super) name: &'static str,
    /// Its kind: a row of the table.
    pub(super) kind: &'static str,
    /// The messages, as JSON without the brackets around them.
    pub(super) messages: &'static str,
    /// Turns of work that come before the messages.
    pub(super) earlier_turns: usize,
    /// Further members of the request, as JSON, each with a comma before it.
    pub(super) more: &'static str,
    pub(super) expected: ExamAim,
}

/// The answer that passes.
#[derive(Clone, Copy, Debug)]
pub(super) enum ExamAim {
    /// Exactly these calls, in any order.
    Calls(&'static [ExpectedCall]),
    /// Text with these words, in any case of letters, and no call.
    Text(&'static [&'static str]),
    /// JSON with this member and value.
    Json(&'static str, &'static str),
    /// Text that ends before this stop sequence, with the stop reason for it.
    StopsBefore(&'static str),
}

/// The tool of a call, and what must stand in its input.
pub(super) type ExpectedCall = (&'static str, &'static [AimMember]);

/// A member of an input: a path of keys and indices with dots between them, and its value.
pub(super) type AimMember = (&'static str, AimValue);

/// The value of a member.
#[derive(Clone, Copy, Debug)]
pub(super) enum AimValue {
    /// This JSON.
    Is(&'static str),
    /// A string that has this text in it.
    Has(&'static str),
    /// An array of this many elements.
    Count(usize),
}
