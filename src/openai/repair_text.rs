//! Repairs as text, for the state folder.

use super::repair::{EFFORTS, Repair};

/// The repairs without a value, and those whose value is one of a few words.
const NAMED: [(&str, Repair); 22] = [
    ("no_thinking", Repair::NoThinking),
    ("no_images", Repair::NoImages),
    ("plain_images", Repair::PlainImages),
    ("plain_schemas", Repair::PlainSchemas),
    ("plain_format", Repair::PlainFormat),
    ("open_schemas", Repair::OpenSchemas),
    ("alternation", Repair::Alternation),
    ("single_calls", Repair::SingleCalls),
    ("calls_alone", Repair::CallsAlone),
    ("no_system", Repair::NoSystem),
    ("system_role_system", Repair::SystemRole("system")),
    ("system_role_developer", Repair::SystemRole("developer")),
    ("call_ids", Repair::CallIds),
    ("tool_names", Repair::ToolNames),
    ("no_named_choice", Repair::NoNamedChoice),
    ("no_choice", Repair::NoChoice),
    ("calls_as_text", Repair::CallsAsText),
    ("loose_format", Repair::LooseFormat),
    ("format_as_text", Repair::FormatAsText),
    ("no_null_content", Repair::NoNullContent),
    ("string_content", Repair::StringContent),
    ("reasoning_content", Repair::ReasoningContent),
];

/// The longest name in a repair, such as a tool's, in bytes.
const NAME_SIZE_MAX: usize = 256;

impl Repair {
    /// The repair as one line. `None`: it is for one request only, or holds what no line can.
    pub fn to_line(&self) -> Option<String> {
        let line = match self {
            Repair::Efforts(efforts) => format!("efforts {}", efforts.join(" ")),
            Repair::Without(name) => format!("without {name}"),
            Repair::OpenSchema(name) => format!("open_schema {name}"),
            Repair::ImagesMax(most) => format!("images_max {most}"),
            Repair::OutputMax(most) => format!("output_max {most}"),
            named => NAMED.iter().find(|(_, repair)| repair == named)?.0.to_owned(),
        };
        (line.len() <= NAME_SIZE_MAX && !line.contains('\n')).then_some(line)
    }

    /// Reads [`Repair::to_line`]. `None`: it is not such a line.
    pub fn from_line(line: &str) -> Option<Repair> {
        let Some((kind, value)) = line.split_once(' ') else {
            return NAMED.iter().find(|(name, _)| *name == line).map(|(_, repair)| repair.clone());
        };
        let known = |word: &str| EFFORTS.iter().find(|effort| **effort == word).copied();
        match kind {
            "efforts" => value.split(' ').map(known).collect::<Option<_>>().map(Repair::Efforts),
            "without" => Some(Repair::Without(value.to_owned())),
            "open_schema" => Some(Repair::OpenSchema(value.to_owned())),
            "images_max" => value.parse().ok().map(Repair::ImagesMax),
            "output_max" => value.parse().ok().map(Repair::OutputMax),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repairs_survive_as_lines() {
        let others = [
            Repair::Efforts(vec!["low", "high"]),
            Repair::Without("parallel_tool_calls".to_owned()),
            Repair::OpenSchema("my tool".to_owned()),
            Repair::ImagesMax(4),
            Repair::OutputMax(8192),
        ];
        for repair in NAMED.map(|(_, repair)| repair).iter().chain(&others) {
            let line = repair.to_line().unwrap();
            assert_eq!(Repair::from_line(&line).as_ref(), Some(repair), "{line}");
        }
        for lost in [
            Repair::Room(7),
            Repair::NewestImage,
            Repair::BrokenImages(vec![1]),
            Repair::Without("a\nb".to_owned()),
            Repair::OpenSchema("x".repeat(1000)),
        ] {
            assert_eq!(lost.to_line(), None, "{lost:?}");
        }
        for line in ["", "no_", "efforts low loud", "images_max x", "output_max -1", "room 7"] {
            assert_eq!(Repair::from_line(line), None, "{line}");
        }
    }
}
