use std::collections::VecDeque;

/// The end of a stream of text, in bounded memory.
#[derive(Debug)]
pub(super) struct Tail {
    bytes: VecDeque<u8>,
    limit: usize,
    cut: bool,
}

impl Tail {
    /// Keeps the last `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { bytes: VecDeque::new(), limit, cut: false }
    }

    /// Adds bytes and forgets the oldest ones over the limit.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let excess = self.bytes.len().saturating_sub(self.limit);
        self.cut |= excess > 0;
        self.bytes.drain(..excess);
    }

    /// What was kept, from the first whole line on, as a terminal would leave it: without colours, and of a line that
    /// was written over again and again, such as a progress bar, only the last state.
    pub(super) fn text(&self) -> String {
        let start = if self.cut { self.bytes.iter().position(|&byte| byte == b'\n').map_or(0, |at| at + 1) } else { 0 };
        let bytes: Vec<u8> = self.bytes.range(start..).copied().collect();
        let plain = without_escapes(&String::from_utf8_lossy(&bytes));
        plain.split_inclusive('\n').map(last_state).collect()
    }
}

/// The beginning of a text, with an ellipsis if it has more than `limit` characters.
pub(super) fn shorten(text: &str, limit: usize) -> String {
    text.char_indices().nth(limit).map_or_else(|| text.to_owned(), |(end, _)| format!("{}…", &text[..end]))
}

/// What follows a line's last carriage return, not counting those at its end.
fn last_state(line: &str) -> String {
    let end = if line.ends_with('\n') { "\n" } else { "" };
    let line = line.trim_end_matches(['\r', '\n']);
    line.rsplit('\r').next().unwrap_or_default().to_owned() + end
}

/// The last `count` lines of a text.
pub(super) fn last_lines(text: &str, count: usize) -> &str {
    let text = text.trim_end();
    text.rmatch_indices('\n').nth(count.saturating_sub(1)).map_or(text, |(at, _)| &text[at + 1..])
}

/// Drops control sequences such as colours: `ESC [`, parameters, one final character in `@`..=`~` (ECMA-48, 5.4).
fn without_escapes(text: &str) -> String {
    let mut pieces = text.split("\u{1b}[");
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        plain.push_str(piece.split_once(|character| ('@'..='~').contains(&character)).map_or("", |(_, rest)| rest));
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_at_the_end_are_kept() {
        let mut tail = Tail::new(10);
        tail.push(b"one\n");
        assert_eq!(tail.text(), "one\n");
        tail.push(b"two\nthree\n");
        assert_eq!(tail.text(), "three\n");
        tail.push(b"a line far over the limit");
        assert_eq!(tail.text(), " the limit", "better a part of a line than nothing");
    }

    #[test]
    fn last_lines_counts_from_the_end() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "b\nc");
        assert_eq!(last_lines("a\nb\n", 9), "a\nb");
        assert_eq!(last_lines("", 3), "");
    }

    #[test]
    fn colours_go_and_invalid_text_stays_readable() {
        let mut tail = Tail::new(100);
        tail.push(b"\x1b[1;31merror\x1b[0m: \xff no");
        assert_eq!(tail.text(), "error: \u{fffd} no");
    }

    #[test]
    fn a_progress_bar_is_its_last_state() {
        let mut tail = Tail::new(100);
        tail.push(b"other system\r\n\r 10 %\r 20 %\r\nagain\r 30 %");
        assert_eq!(tail.text(), "other system\n 20 %\n 30 %");
    }

    #[test]
    fn shortening_counts_characters() {
        assert_eq!(shorten("\u{e9}t\u{e9}", 3), "\u{e9}t\u{e9}");
        assert_eq!(shorten("\u{e9}t\u{e9}s", 3), "\u{e9}t\u{e9}…");
    }
}
