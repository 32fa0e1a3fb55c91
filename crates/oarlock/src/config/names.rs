//! Names, and what was probably meant by a wrong one.

/// Longest name of a cluster, node, group or resource, in characters (as for a host name label).
const NAME_MAX_CHARS: usize = 63;

/// What is wrong with a name, or `None`. Names end up in paths, cgroups and host names.
pub fn fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("must not be empty");
    }
    if name.len() > NAME_MAX_CHARS {
        return Some("must not be longer than 63 characters");
    }
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Some("must begin with a letter or a digit");
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
        return Some("may only hold letters, digits, \"-\", \"_\" and \".\"");
    }
    None
}

/// The candidate that `wrong` is a slip of the pen for, if one is near enough.
pub fn nearest<'c>(wrong: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    // A third of the word may differ: "adress" finds "address", "xyz" finds nothing.
    let limit = (wrong.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&wrong.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edit distance, two neighbours exchanged counted as one change.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(NAME_MAX_CHARS + 1).collect();
    let b: Vec<char> = b.chars().take(NAME_MAX_CHARS + 1).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_find_their_word() {
        let keys = ["address", "name", "links", "data_dir"];
        assert_eq!(nearest("adress", keys), Some("address"));
        assert_eq!(nearest("nmae", keys), Some("name"));
        assert_eq!(nearest("Links", keys), Some("links"));
        assert_eq!(nearest("link", keys), Some("links"));
        assert_eq!(nearest("xyz", keys), None);
    }

    #[test]
    fn names_fit_paths() {
        assert_eq!(fault("server1.example-net_2"), None);
        for bad in ["", ".x", "a b", "a/b", "ä"] {
            assert!(fault(bad).is_some(), "{bad:?}");
        }
        assert!(fault(&"a".repeat(64)).is_some());
    }
}
