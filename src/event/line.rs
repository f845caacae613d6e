//! Where lines end: the one thing that encoding and decoding share, besides the specification.

/// The bytes that are searched in one step.
const BLOCK: usize = 32;

/// Returns where the first CR or LF is.
pub(super) fn line_break(bytes: &[u8]) -> Option<usize> {
    let is_break = |byte: &u8| (*byte == b'\r') | (*byte == b'\n');
    let (blocks, _) = bytes.as_chunks::<BLOCK>();
    // Compilers make vector instructions of a loop that looks at each byte of a block without stopping.
    let clean = |block: &&[u8; BLOCK]| !block.iter().map(is_break).fold(false, |a, b| a | b);
    let start = BLOCK * blocks.iter().take_while(clean).count();
    let offset = bytes[start..].iter().position(is_break)?;
    Some(start + offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_break_is_found_wherever_blocks_end() {
        for length in 0..3 * BLOCK {
            let mut bytes = vec![b'a'; length];
            assert_eq!(line_break(&bytes), None, "{length} bytes without one");
            for (at, byte) in (0..length).rev().zip([b'\r', b'\n'].into_iter().cycle()) {
                bytes[at] = byte;
                assert_eq!(line_break(&bytes), Some(at), "in {length} bytes");
            }
        }
    }
}
