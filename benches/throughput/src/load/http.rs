//! As much of HTTP/1.1 as the responses of the servers need.

/// A response that has arrived as a whole.
#[derive(Debug, PartialEq)]
pub(super) struct Reply<'a> {
    pub(super) status: &'a [u8],
    pub(super) body: &'a [u8],
    head: &'a [u8],
    /// Bytes of the whole.
    pub(super) length: usize,
}

impl<'a> Reply<'a> {
    /// `None` while some of it is missing.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|at| at == b"\r\n\r\n")?;
        let head = &bytes[..end];
        let length = end + 4 + content_length(head)?;
        Some(Self {
            status: head.get(9..12)?,
            body: bytes.get(end + 4..length)?,
            head,
            length,
        })
    }

    /// The cookies as a browser would send them with the next request.
    pub(super) fn cookies(&self) -> String {
        let mut pairs = Vec::new();
        for line in lines(self.head) {
            if let Some(value) = header(line, b"set-cookie:") {
                let pair = value
                    .split(|byte| *byte == b';')
                    .next()
                    .unwrap_or_default();
                let pair = String::from_utf8_lossy(pair).trim().to_owned();
                if !pair.ends_with('=') {
                    pairs.push(pair);
                }
            }
        }
        pairs.join("; ")
    }
}

/// A response without a length is none that the servers give.
fn content_length(head: &[u8]) -> Option<usize> {
    let value = lines(head).find_map(|line| header(line, b"content-length:"))?;
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    head.split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

fn header<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, value) = line.split_at_checked(name.len())?;
    found.eq_ignore_ascii_case(name).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &[u8] = b"HTTP/1.1 200 OK\r\nSet-Cookie: id=abc; HttpOnly\r\nset-cookie: gone=; \
        Max-Age=0\r\nset-cookie: b=c\r\nContent-Length: 2\r\n\r\n42";

    #[test]
    fn a_response_is_parsed_once_it_is_whole() {
        for length in 0..WHOLE.len() {
            assert_eq!(Reply::parse(&WHOLE[..length]), None);
        }
        let response = Reply::parse(WHOLE).expect("whole");
        assert_eq!(
            (response.status, response.body, response.length),
            (&b"200"[..], &b"42"[..], WHOLE.len())
        );
    }

    #[test]
    fn cookies_are_sent_back_unless_they_were_removed() {
        let response = Reply::parse(WHOLE).expect("whole");
        assert_eq!(response.cookies(), "id=abc; b=c");
    }
}
