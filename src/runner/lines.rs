/// Cuts a stream of bytes into lines, whatever pieces it arrives in.
#[derive(Debug)]
pub(super) struct Lines {
    partial: Vec<u8>,
    limit: usize,
}

/// A line outgrew the limit; this is its beginning.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong(pub(super) Vec<u8>);

impl Lines {
    /// A splitter that refuses lines of more than `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { partial: Vec::new(), limit }
    }

    /// Longest line accepted, in bytes.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Adds bytes and hands out every line that is now complete, without its line feed.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), TooLong> {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.extend(&bytes[..end])?;
            each(&self.partial);
            self.partial.clear();
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes)
    }

    /// Takes the last line, which no line feed ended.
    pub(super) fn take_rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.partial)
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        self.partial.extend_from_slice(bytes);
        if self.partial.len() > self.limit { Err(TooLong(self.take_rest())) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_over_the_limit_is_refused() {
        let mut lines = Lines::new(4);
        assert_eq!(lines.push(b"1234\n12", |_| ()), Ok(()));
        assert_eq!(lines.push(b"345", |_| ()), Err(TooLong(b"12345".to_vec())));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(text in "[ab\n]{0,60}", size in 1_usize..8) {
            let mut lines = Lines::new(100);
            let mut found = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                lines.push(piece, |line| found.push(line.to_vec())).expect("within the limit");
            }
            found.push(lines.take_rest());
            let expected: Vec<_> = text.split('\n').map(|line| line.as_bytes().to_vec()).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
