//! The steps of a recording, read again from its text and the bytes of its places.

use super::tap::{PLACES, StepKind};

/// One step of a recorded request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordedStep<'r> {
    /// Its kind.
    pub kind: StepKind,
    /// Microseconds since the head of the request was here.
    pub at: u64,
    /// Its bytes; of an earlier body that was sent to an upstream none are kept.
    pub bytes: &'r [u8],
    /// The facts about it, JSON or empty.
    pub facts: &'r str,
}

/// Reads the steps of a recording. Lines of a kind that a newer version has written are left out.
pub fn read_steps<'r>(text: &'r str, places: &'r [Vec<u8>; PLACES]) -> Vec<RecordedStep<'r>> {
    let mut used = [0_usize; PLACES];
    let mut steps = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(4, ' ');
        let (at, mark, size) = (parts.next(), parts.next(), parts.next());
        let (Some(at), Some(size)) =
            (at.and_then(|at| at.parse().ok()), size.and_then(|size| size.parse::<usize>().ok()))
        else {
            continue;
        };
        let Some(kind) = mark.and_then(|mark| mark.chars().next()).and_then(StepKind::of_mark) else {
            continue;
        };
        let bytes = match kind.place() {
            None => &[][..],
            // Bodies are kept whole, and images may have been cut out of them.
            Some(place @ 0..3) => places.get(place).map(Vec::as_slice).unwrap_or_default(),
            Some(place) => {
                let from = used.get(place).copied().unwrap_or_default();
                let end = from.saturating_add(size);
                if let Some(used) = used.get_mut(place) {
                    *used = end;
                }
                places.get(place).and_then(|bytes| bytes.get(from..end)).unwrap_or_default()
            }
        };
        steps.push(RecordedStep { kind, at, bytes, facts: parts.next().unwrap_or_default() });
    }
    if let Some(last) = steps.iter().rposition(|step| step.kind == StepKind::Sent) {
        let earlier = steps.iter_mut().take(last).filter(|step| step.kind == StepKind::Sent);
        earlier.for_each(|step| step.bytes = &[]);
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_get_their_bytes_back() {
        let places =
            [b"client".to_vec(), Vec::new(), b"sent".to_vec(), b"onetwo".to_vec(), b"answer".to_vec()];
        let text =
            "1 i 6 \n2 b 9 {\"n\":1}\n3 b 4 \n4 u 3 \n5 c 6 \n6 u 3 \nrubbish\n7 z 1 \n8 u x \n9 u 0 \n";
        let steps = read_steps(text, &places);
        let told: Vec<(u64, &str)> =
            steps.iter().map(|step| (step.at, std::str::from_utf8(step.bytes).unwrap())).collect();
        assert_eq!(
            told,
            [(1, "client"), (2, ""), (3, "sent"), (4, "one"), (5, "answer"), (6, "two"), (9, "")]
        );
        assert_eq!(steps[1].facts, "{\"n\":1}");
        let hostile = format!("1 u {} \n2 u 1 \n", usize::MAX);
        assert!(read_steps(&hostile, &places).iter().all(|step| step.bytes.is_empty()));
    }
}
