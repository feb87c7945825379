//! The command that repeats a result.

use std::collections::BTreeSet;

/// The command that repeats one result of this program: the command line with the given values in place of its lists.
pub fn repeating_command(values: &[(&str, String)]) -> String {
    let line: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    one_run(&line, values)
}

/// The arguments of a command line, with the given values instead of its lists and with files without their folders. If
/// two files would then have the same name, they keep as much of their folders as distinguishes them.
///
/// `values` are option names and their values in this run. An option that is missing from the line is added.
fn one_run(line: &[String], values: &[(&str, String)]) -> String {
    let program = line.first().and_then(|path| std::path::Path::new(path).file_stem()).unwrap_or_default();
    let mut words: Vec<String> = vec![program.to_string_lossy().into_owned()];
    let trimmed = |word: &str| if word.len() > 1 { word.trim_end_matches('/') } else { word }.to_string();
    let value = |word: &String| trimmed(word.split_once('=').map_or(word, |(_, given)| given));
    let paths: BTreeSet<String> = line.iter().skip(1).map(value).collect();
    let bare = |word: &str| {
        // The file's name, and as many of its folders as distinguish it from other files.
        let word = trimmed(word);
        let end = |path: &str, parts: usize| path.rsplit('/').take(parts).map(String::from).collect::<Vec<_>>();
        let is_alone = |parts: &usize| {
            let own = end(&word, *parts);
            paths.iter().all(|path| *path == word || end(path, *parts) != own)
        };
        let parts = (1..=word.split('/').count()).find(is_alone).unwrap_or(usize::MAX);
        end(&word, parts).into_iter().rev().collect::<Vec<_>>().join("/")
    };
    let mut missing: Vec<&(&str, String)> = values.iter().collect();
    let mut rest = line.iter().skip(1);
    while let Some(word) = rest.next() {
        let (name, given) = match word.split_once('=') {
            Some((name, given)) if name.starts_with("--") => (name, Some(given.to_string())),
            _ => (word.as_str(), None),
        };
        let Some((option, value)) = values.iter().find(|(option, _)| *option == name) else {
            words.push(match &given {
                Some(given) => format!("{name}={}", bare(given)),
                None => bare(word),
            });
            continue;
        };
        missing.retain(|(other, _)| other != option);
        words.extend([name.to_string(), value.clone()]);
        if given.is_none() {
            rest.next();
        }
    }
    words.extend(missing.iter().flat_map(|(option, value)| [(*option).to_string(), value.clone()]));
    words.iter().map(|word| quoted(word)).collect::<Vec<String>>().join(" ")
}

/// A word quoted so that a shell reads it back unchanged.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,=:@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_run_of_many() {
        let line = "/usr/bin/midspan sweep run --text /a/b/novels.txt --lambda 0.1,0.2 --seed=1,2 --float --steps 9";
        let line: Vec<String> = line.split(' ').map(String::from).collect();
        let values = [("--lambda", "0.2".to_string()), ("--seed", "1".to_string()), ("--split", "4".to_string())];
        assert_eq!(
            one_run(&line, &values),
            "midspan sweep run --text novels.txt --lambda 0.2 --seed 1 --float --steps 9 --split 4"
        );
    }

    #[test]
    fn files_of_one_name_stay_two() {
        let told = |line: &str| one_run(&line.split(' ').map(String::from).collect::<Vec<String>>(), &[]);
        assert_eq!(
            told("midspan freeze --from /a/one/last.safetensors --against=b/two/last.safetensors --out /c/model"),
            "midspan freeze --from one/last.safetensors --against=two/last.safetensors --out model"
        );
        assert_eq!(told("midspan x /a/run/last --against /b/run/last"), "midspan x a/run/last --against b/run/last");
        assert_eq!(told("midspan x --out a/b/ --from c/d"), "midspan x --out b --from d");
        assert_eq!(told("midspan x /run/last last"), "midspan x run/last last");
        assert_eq!(told("midspan x /last last /a/one /a/one"), "midspan x /last last one one");
    }

    #[test]
    fn a_shell_reads_it_back() {
        let line = ["midspan", "eval", "--text", "/a/old books/it's.txt", "--passages=b c.jsonl", ""].map(String::from);
        let command = one_run(&line, &[("--batch", "1,2".to_string())]);
        assert_eq!(command, r"midspan eval --text 'it'\''s.txt' '--passages=b c.jsonl' '' --batch 1,2");
    }
}
