//! Completions for bash, zsh and fish.
//!
//! Each completes the commands, their options, and the values that are files or one of a few words. The options of the
//! default command are completed where no command was typed.

use std::fmt::Write as _;

use argh::CommandInfoWithArgs;

use super::{DEFAULT_COMMAND, DescribedOption, commands, options};

/// Completions for bash, from version 3.2 on (macOS).
pub(super) fn bash(program: &CommandInfoWithArgs) -> String {
    let mut cases = String::new();
    let (mut with_file, mut with_value) = (vec![], vec![]);
    for command in commands(program) {
        let options = options(command);
        let names: Vec<&str> = options.iter().map(|option| option.name).collect();
        let below = commands(command).map(|below| below.name);
        let words: Vec<&str> = below.chain(names).collect();
        let _ = writeln!(cases, "        {}) words=\"{}\" ;;", command.name, words.join(" "));
        for option in options.iter().filter(|option| option.value.is_some() && option.values().is_empty()) {
            if option.takes_file() { &mut with_file } else { &mut with_value }.push(option.name);
        }
    }
    for names in [&mut with_file, &mut with_value] {
        names.sort_unstable();
        names.dedup();
    }
    let names: Vec<&str> = commands(program).map(|command| command.name).collect();
    BASH.replace("@commands@", &names.join(" "))
        .replace("@default@", DEFAULT_COMMAND)
        .replace("@files@", &with_file.join("|"))
        .replace("@values@", &with_value.join("|"))
        .replace("@cases@", &cases)
}

const BASH: &str = r#"# Completions of sparkgap for bash; made by `sparkgap generate bash`.
_sparkgap() {
    local IFS=$' \t\n' word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]} words
    COMPREPLY=()
    case $previous in
        @files@) compopt -o filenames 2>/dev/null; IFS=$'\n'; COMPREPLY=($(compgen -f -- "$word")); return ;;
        @values@) return ;;
        --log-level) COMPREPLY=($(compgen -W "error warn info debug trace" -- "$word")); return ;;
    esac
    if [ "$COMP_CWORD" = 1 ] && [[ $word != -* ]]; then
        COMPREPLY=($(compgen -W "@commands@" -- "$word"))
        return
    fi
    [[ $command != -* ]] || command=@default@
    case $command in
@cases@    esac
    if [[ $word = -* ]] || [ "$command" = key ]; then
        COMPREPLY=($(compgen -W "$words" -- "$word"))
    elif [ "$command" = generate ]; then
        COMPREPLY=($(compgen -W "man bash zsh fish" -- "$word"))
    else
        compopt -o filenames 2>/dev/null
        IFS=$'\n'
        COMPREPLY=($(compgen -f -- "$word"))
    fi
}
complete -F _sparkgap sparkgap
"#;

/// Completions for zsh, as the function `_sparkgap`.
pub(super) fn zsh(program: &CommandInfoWithArgs) -> String {
    let mut text = String::from(
        "#compdef sparkgap\n# Completions of sparkgap for zsh; made by `sparkgap generate zsh`.\n\
         _sparkgap() {\n    local command=$words[2]\n    local -a commands=(\n",
    );
    for command in commands(program) {
        let _ = writeln!(text, "        {}", quoted(&format!("{}:{}", command.name, command.description)));
    }
    let _ = write!(
        text,
        "    )\n    if (( CURRENT == 2 )) && [[ $command != -* ]]; then\n        _describe command commands\n        \
         return\n    fi\n    if [[ $command == -* ]]; then\n        command={DEFAULT_COMMAND}\n    else\n        \
         shift words\n        (( CURRENT-- ))\n    fi\n    case $command in\n"
    );
    for command in commands(program) {
        let _ = writeln!(text, "        {})\n            _arguments \\", command.name);
        for option in options(command) {
            let _ = writeln!(text, "                {} \\", quoted(&zsh_option(&option)));
        }
        let rest = match command.name {
            "generate" => "1:kind:(man bash zsh fish)",
            "key" => "1:action:(new)",
            _ => "*:file:_files",
        };
        let _ = writeln!(text, "                '{rest}'\n            ;;");
    }
    text.push_str("    esac\n}\n_sparkgap \"$@\"\n");
    text
}

/// An option as `_arguments` takes it.
fn zsh_option(option: &DescribedOption) -> String {
    let text: String = option.text.chars().flat_map(escaped_for_zsh).collect();
    let repeated = if option.is_repeatable { "*" } else { "" };
    let value = match option.value {
        None => String::new(),
        Some(value) if option.takes_file() => format!(":{value}:_files"),
        Some(value) if option.values().is_empty() => format!(":{value}: "),
        Some(value) => format!(":{value}:({})", option.values()),
    };
    format!("{repeated}{}[{text}]{value}", option.name)
}

/// Brackets, colons and backslashes have a meaning in the texts of `_arguments`.
fn escaped_for_zsh(c: char) -> impl Iterator<Item = char> {
    matches!(c, '[' | ']' | ':' | '\\').then_some('\\').into_iter().chain([c])
}

/// Completions for fish.
pub(super) fn fish(program: &CommandInfoWithArgs) -> String {
    let mut text = String::from("# Completions of sparkgap for fish; made by `sparkgap generate fish`.\n");
    for command in commands(program) {
        let name = command.name;
        let about = quoted_for_fish(command.description);
        let _ = writeln!(text, "complete -c sparkgap -f -n __fish_use_subcommand -a {name} -d {about}");
        let here = format!("'__fish_seen_subcommand_from {name}'");
        for option in options(command) {
            fish_option(&mut text, &here, &option);
            if name == DEFAULT_COMMAND {
                fish_option(&mut text, "__fish_use_subcommand", &option);
            }
        }
        for below in commands(command) {
            let about = quoted_for_fish(below.description);
            let _ = writeln!(text, "complete -c sparkgap -f -n {here} -a {} -d {about}", below.name);
        }
        if name == "generate" {
            let _ = writeln!(text, "complete -c sparkgap -f -n {here} -a 'man bash zsh fish'");
        }
    }
    text
}

fn fish_option(text: &mut String, condition: &str, option: &DescribedOption) {
    let value = match option.value {
        None => String::new(),
        Some(_) if option.takes_file() => " -r -F".to_owned(),
        Some(_) if option.values().is_empty() => " -x".to_owned(),
        Some(_) => format!(" -x -a '{}'", option.values()),
    };
    let name = option.name.trim_start_matches('-');
    let about = quoted_for_fish(&option.text);
    let _ = writeln!(text, "complete -c sparkgap -n {condition} -l {name}{value} -d {about}");
}

/// A text in single quotes, for bash and zsh.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A text in single quotes, for fish.
fn quoted_for_fish(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_cannot_end_their_quotes() {
        assert_eq!(quoted("Claude Code's"), "'Claude Code'\\''s'");
        assert_eq!(quoted_for_fish("it's \\"), "'it\\'s \\\\'");
        assert_eq!("a[b]:c".chars().flat_map(escaped_for_zsh).collect::<String>(), "a\\[b\\]\\:c");
    }
}
