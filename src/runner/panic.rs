/// Most lines of a panic's message that are quoted; the rest is in the captured standard error.
const MESSAGE_LINES: usize = 6;

/// Finds a Rust panic in a program's standard error: `at src/lib.rs:3:5: message`.
///
/// The first one is taken, because later ones are mostly its consequences. Both the standard library's text and
/// color-eyre's are understood.
pub(super) fn find_panic(stderr: &str) -> Option<String> {
    let lines: Vec<&str> = stderr.lines().collect();
    let (index, line) = lines.iter().enumerate().find(|(_, line)| is_headline(line))?;
    let following = &lines[index + 1..];
    if let Some((_, place)) = line.split_once(" panicked at ") {
        let message = following.iter().copied().take_while(|line| !is_end(line)).take(MESSAGE_LINES);
        return Some(format!("at {place} {}", join(message)).trim_end_matches([':', ' ']).to_owned());
    }
    let field = |name: &str| following.iter().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let message = field("Message:")?;
    Some(field("Location:").map_or_else(|| message.to_owned(), |place| format!("at {place}: {message}")))
}

fn is_headline(line: &str) -> bool {
    (line.starts_with("thread ") && line.contains(" panicked at ")) || line.starts_with("The application panicked")
}

fn is_end(line: &str) -> bool {
    line.starts_with("note: ") || line.starts_with("stack backtrace:") || is_headline(line)
}

fn join<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    lines.map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::find_panic;

    #[test]
    fn panics_are_found_in_both_styles() {
        let cases = [
            ("all is well\n", None),
            (
                "hello\nthread 'main' (17) panicked at src/main.rs:2:5:\nboom\nnote: run with `RUST_BACKTRACE=1`\n",
                Some("at src/main.rs:2:5: boom"),
            ),
            (
                "thread 'w' panicked at a.rs:1:1:\nassertion `left == right` failed\n  left: 1\n right: 2\n\
                 thread 'main' panicked at b.rs:9:9:\ncalled `Result::unwrap()` on an `Err` value\n",
                Some("at a.rs:1:1: assertion `left == right` failed, left: 1, right: 2"),
            ),
            ("thread 'main' panicked at a.rs:1:1:\n", Some("at a.rs:1:1")),
            (
                "The application panicked (crashed).\nMessage:  no such kernel\nLocation: src/ops/mod.rs:40\n",
                Some("at src/ops/mod.rs:40: no such kernel"),
            ),
        ];
        for (stderr, expected) in cases {
            assert_eq!(find_panic(stderr).as_deref(), expected, "{stderr}");
        }
    }
}
