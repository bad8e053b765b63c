//! A connection's buffers: made when they are needed, given back while it is idle.
//!
//! Knows no socket. ureq's own `LazyBuffers` keep what they once had; with a large output buffer and 64 pooled
//! connections that would be megabytes of nothing.

use ureq::unversioned::transport::Buffers;

/// One read from the socket at first: a head, or a few events.
const INPUT_SIZE: usize = 2 * 1024;

/// Reads that fill the input double it up to this: a slow stream costs little memory, a fast one few reads.
const INPUT_SIZE_FAST: usize = 32 * 1024;

/// The input grows to this where one element (the response's head) does not fit. ureq refuses heads over 64 KiB.
const INPUT_SIZE_MAX: usize = 128 * 1024;

/// One write to the socket at most. A usual request, system prompt and tools included, goes out with one or two.
const OUTPUT_SIZE_MAX: usize = 64 * 1024;

/// Room for a request's head. ureq writes each header in one piece.
const OUTPUT_SIZE_MIN: usize = 8 * 1024;

/// Input and output of one connection.
#[derive(Debug, Default)]
pub(super) struct ConnectionBuffers {
    input: Vec<u8>,
    /// The bytes of `input` that are read but not yet consumed.
    start: usize,
    end: usize,
    output: Vec<u8>,
    output_size: usize,
    /// Whether the last read filled the input to its end: more was there.
    was_filled: bool,
    /// Whether the last `input_consume` took anything; if not, what is there is not enough.
    progress: bool,
}

impl ConnectionBuffers {
    /// What is to be sent: the first `amount` bytes of the output.
    pub(super) fn pending(&self, amount: usize) -> &[u8] {
        self.output.get(..amount).unwrap_or_default()
    }

    /// A body of so many bytes comes next: more room than it needs would be cleared for nothing.
    pub(super) fn expect_body(&mut self, size: usize) {
        self.output_size = size.min(OUTPUT_SIZE_MAX);
    }

    /// Gives the output's memory back: the request is out, and the answer may take minutes.
    pub(super) fn release_output(&mut self) {
        self.output = Vec::new();
    }

    /// Gives all memory back, unless unconsumed input would be lost. Returns whether there was none.
    pub(super) fn release(&mut self) -> bool {
        self.release_output();
        if self.start < self.end {
            return false;
        }
        *self = Self::default();
        true
    }

    fn make_room(&mut self) {
        if self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let was_filled = std::mem::take(&mut self.was_filled) && self.input.len() < INPUT_SIZE_FAST;
        if self.end == self.input.len() || was_filled {
            let size = (self.input.len() * 2).clamp(INPUT_SIZE, INPUT_SIZE_MAX);
            self.input.resize(size, 0);
        }
    }
}

impl Buffers for ConnectionBuffers {
    fn output(&mut self) -> &mut [u8] {
        let size = self.output_size.max(OUTPUT_SIZE_MIN);
        if self.output.len() < size {
            self.output = vec![0; size];
        }
        &mut self.output
    }

    fn input(&self) -> &[u8] {
        self.input.get(self.start..self.end).unwrap_or_default()
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        self.make_room();
        self.input.get_mut(self.end..).unwrap_or_default()
    }

    fn input_appended(&mut self, amount: usize) {
        self.end = (self.end + amount).min(self.input.len());
        self.was_filled = self.end == self.input.len();
    }

    fn input_consume(&mut self, amount: usize) {
        self.progress = amount > 0;
        self.start = (self.start + amount).min(self.end);
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        self.output();
        self.make_room();
        (self.input.get_mut(self.end..).unwrap_or_default(), &mut self.output)
    }

    fn can_use_input(&self) -> bool {
        self.progress && self.start < self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(buffers: &mut ConnectionBuffers, bytes: &[u8]) {
        buffers.input_append_buf()[..bytes.len()].copy_from_slice(bytes);
        buffers.input_appended(bytes.len());
    }

    #[test]
    fn input_is_consumed_in_order() {
        let mut buffers = ConnectionBuffers::default();
        append(&mut buffers, b"abc");
        buffers.input_consume(1);
        append(&mut buffers, b"def");
        assert_eq!(buffers.input(), b"bcdef");
    }

    #[test]
    fn input_is_usable_only_after_progress() {
        let mut buffers = ConnectionBuffers::default();
        append(&mut buffers, b"HTTP/1.1 2");
        buffers.input_consume(0);
        assert!(!buffers.can_use_input());
        append(&mut buffers, b"00 OK");
        buffers.input_consume(3);
        assert!(buffers.can_use_input());
    }

    #[test]
    fn input_grows_to_its_limit_and_no_further() {
        let mut buffers = ConnectionBuffers::default();
        loop {
            let room = buffers.input_append_buf().len();
            if room == 0 {
                break;
            }
            buffers.input_appended(room);
        }
        assert_eq!(buffers.input().len(), INPUT_SIZE_MAX);
    }

    #[test]
    fn an_idle_connection_holds_no_memory() {
        let mut buffers = ConnectionBuffers::default();
        assert_eq!(buffers.output().len(), OUTPUT_SIZE_MIN);
        buffers.expect_body(10 * OUTPUT_SIZE_MAX);
        assert_eq!(buffers.output().len(), OUTPUT_SIZE_MAX);
        append(&mut buffers, b"x");
        assert!(!buffers.release());
        assert_eq!(buffers.input(), b"x");
        buffers.input_consume(1);
        assert!(buffers.release());
        assert_eq!(buffers.input.capacity() + buffers.output.capacity(), 0);
    }
}
