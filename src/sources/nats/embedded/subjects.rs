//! Subjects and their wildcards. Must never allocate: it is asked for every message and subscription.

/// Whether messages may be sent to it: tokens between dots, no wildcard.
pub fn is_literal(subject: &str) -> bool {
    is_pattern(subject) && subject.split('.').all(|token| token != "*" && token != ">")
}

/// Whether it may be subscribed to: tokens between dots, `*` for one, `>` for the rest.
pub fn is_pattern(subject: &str) -> bool {
    let mut tokens = subject.split('.').peekable();
    let plain = |token: &str| !token.is_empty() && !token.bytes().any(|byte| byte.is_ascii_whitespace());
    while let Some(token) = tokens.next() {
        if !plain(token) || (token == ">" && tokens.peek().is_some()) {
            return false;
        }
    }
    true
}

/// Whether a subscription to `pattern` receives what is sent to `subject`.
pub fn matches(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in pattern.split('.') {
        match (wanted, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (wanted, Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_whole_tokens() {
        for (pattern, subject, found) in [
            ("a.b", "a.b", true),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*", "a.b.c", false),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            (">", "a", true),
            ("*.b", "a.b", true),
            ("a.b*", "a.bc", false),
            ("a.b", "a.b.c", false),
        ] {
            assert_eq!(matches(pattern, subject), found, "{pattern} {subject}");
        }
    }

    #[test]
    fn tokens_are_not_empty_and_the_rest_is_last() {
        assert!(["a", "a.b", "*", "a.>", "a.*.c"].into_iter().all(is_pattern));
        assert!(!["", ".", "a.", ".a", "a..b", "a.>.b", "a b"].into_iter().any(is_pattern));
        assert!(is_literal("a.b") && !is_literal("a.*") && !is_literal(">"));
    }
}
