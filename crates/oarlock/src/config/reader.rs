//! Walks the parsed TOML, collecting problems instead of stopping at the first.

use super::names::nearest;
use super::problem::Problem;
use super::schema::SectionSchema;
use std::cell::RefCell;
use std::ops::RangeInclusive;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value with the line it stands on.
#[derive(Clone, Debug)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Line in the file, from 1.
    pub line: u32,
}

/// What is common to all sections: where lines begin, and the problems so far.
pub struct Reader {
    line_starts: Vec<usize>,
    problems: RefCell<Vec<Problem>>,
}

impl Reader {
    /// A reader of `text`.
    pub fn new(text: &str) -> Reader {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Reader { line_starts: std::iter::once(0).chain(newlines).collect(), problems: RefCell::default() }
    }

    /// The line, from 1, that a byte of the text is on.
    pub fn line(&self, offset: usize) -> u32 {
        u32::try_from(self.line_starts.partition_point(|start| *start <= offset)).unwrap_or(u32::MAX)
    }

    /// Notes a problem and goes on.
    pub fn report(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// Notes an error without a hint.
    pub fn error(&self, line: u32, text: impl Into<String>) {
        self.report(Problem::error(line, text));
    }

    /// Notes what the TOML parser says.
    pub fn syntax(&self, error: &toml::de::Error) {
        let line = error.span().map_or(1, |span| self.line(span.start));
        self.error(line, error.message().trim().replace('\n', ", "));
    }

    /// The end of reading.
    pub fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }
}

/// One table of the file, with the keys it may have.
pub struct Section<'t> {
    /// What is common to all sections.
    pub reader: &'t Reader,
    /// Line of its header.
    pub line: u32,
    schema: &'static SectionSchema,
    table: &'t DeTable<'t>,
}

impl<'t> Section<'t> {
    /// Opens a table and reports the keys it may not have.
    pub fn open(
        reader: &'t Reader,
        table: &'t DeTable<'t>,
        offset: usize,
        schema: &'static SectionSchema,
    ) -> Section<'t> {
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if schema.keys.iter().any(|known| known.name == name) {
                continue;
            }
            let problem =
                Problem::error(reader.line(key.span().start), format!("unknown key \"{name}\" in {}", schema.title));
            let names = schema.keys.iter().map(|known| known.name);
            reader.report(match nearest(name, names.clone()) {
                Some(meant) => problem.hint(format!("did you mean \"{meant}\"?")),
                None => problem.hint(format!("known keys: {}", names.collect::<Vec<_>>().join(", "))),
            });
        }
        Section { reader, line: reader.line(offset), schema, table }
    }

    fn get(&self, key: &str) -> Option<(&'t Spanned<DeValue<'t>>, u32)> {
        let value = self.table.get(key)?;
        Some((value, self.reader.line(value.span().start)))
    }

    fn wrong_type<T>(&self, key: &str, line: u32, wanted: &str, value: &DeValue<'_>) -> Option<T> {
        self.reader.error(line, format!("\"{key}\" must be {wanted}, not {}", described(value)));
        None
    }

    /// Whether the key is there, whatever its value.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// How many items a list has.
    pub fn count(&self, key: &str) -> usize {
        self.get(key).and_then(|(value, _)| value.get_ref().as_array()).map_or(0, |array| array.len())
    }

    /// The line of a key, else of the section.
    pub fn line_of(&self, key: &str) -> u32 {
        self.get(key).map_or(self.line, |(_, line)| line)
    }

    /// Reports that a key is needed and not there.
    pub fn missing(&self, key: &str) {
        let example = self.schema.keys.iter().find(|known| known.name == key).map_or("", |known| known.example);
        self.reader.report(
            Problem::error(self.line, format!("{} lacks \"{key}\"", self.schema.title))
                .hint(format!("for example: {key} = {example}")),
        );
    }

    /// A string, if the key is there.
    pub fn text(&self, key: &str) -> Option<Located<String>> {
        let (value, line) = self.get(key)?;
        match value.get_ref().as_str() {
            Some(text) => Some(Located { value: text.to_owned(), line }),
            None => self.wrong_type(key, line, "a string", value.get_ref()),
        }
    }

    /// A string that must be there.
    pub fn required_text(&self, key: &str) -> Option<Located<String>> {
        if !self.has(key) {
            self.missing(key);
        }
        self.text(key)
    }

    /// A string that must be one of a few, with its meaning.
    pub fn choice<T: Copy>(&self, key: &str, choices: &[(&'static str, T)]) -> Option<Located<T>> {
        let text = self.text(key)?;
        if let Some((_, meaning)) = choices.iter().find(|(word, _)| *word == text.value) {
            return Some(Located { value: *meaning, line: text.line });
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let problem = Problem::error(text.line, format!("unknown {key} \"{}\"", text.value));
        self.reader.report(match nearest(&text.value, words.iter().copied()) {
            Some(meant) => problem.hint(format!("did you mean \"{meant}\"?")),
            None => problem.hint(format!("one of: {}", words.join(", "))),
        });
        None
    }

    /// A whole number within `range`, if the key is there.
    pub fn integer(&self, key: &str, range: RangeInclusive<u64>) -> Option<Located<u64>> {
        let (value, line) = self.get(key)?;
        let Some(integer) = value.get_ref().as_integer() else {
            return self.wrong_type(key, line, "a whole number", value.get_ref());
        };
        let number = u64::from_str_radix(&integer.as_str().replace('_', ""), integer.radix()).ok();
        match number.filter(|number| range.contains(number)) {
            Some(value) => Some(Located { value, line }),
            None => {
                let text = format!("\"{key}\" is {integer}, outside of {} to {}", range.start(), range.end());
                self.reader.error(line, text);
                None
            }
        }
    }

    /// A list of strings, if the key is there.
    pub fn texts(&self, key: &str) -> Option<Located<Vec<Located<String>>>> {
        let (value, line) = self.get(key)?;
        let Some(array) = value.get_ref().as_array() else {
            return self.wrong_type(key, line, "a list of strings", value.get_ref());
        };
        let mut list = Vec::new();
        for item in array.iter() {
            let line = self.reader.line(item.span().start);
            match item.get_ref().as_str() {
                Some(text) => list.push(Located { value: text.to_owned(), line }),
                None => return self.wrong_type(key, line, "a list of strings", item.get_ref()),
            }
        }
        Some(Located { value: list, line })
    }

    /// A table whose values are strings, if the key is there.
    pub fn text_map(&self, key: &str) -> Option<Vec<(String, String)>> {
        let (value, line) = self.get(key)?;
        let Some(table) = value.get_ref().as_table() else {
            return self.wrong_type(key, line, "a table of strings", value.get_ref());
        };
        let mut pairs = Vec::new();
        for (name, item) in table {
            match item.get_ref().as_str() {
                Some(text) => pairs.push((name.get_ref().to_string(), text.to_owned())),
                None => {
                    let line = self.reader.line(item.span().start);
                    return self.wrong_type(name.get_ref(), line, "a string", item.get_ref());
                }
            }
        }
        Some(pairs)
    }

    /// A table, if the key is there.
    pub fn section(&self, key: &str, schema: &'static SectionSchema) -> Option<Section<'t>> {
        let (value, line) = self.get(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(Section::open(self.reader, table, value.span().start, schema)),
            other => self.wrong_type(key, line, "a table", other),
        }
    }

    /// A string or a whole number, as a string; it must be there.
    pub fn required_text_or_integer(&self, key: &str) -> Option<Located<String>> {
        if let Some((value, line)) = self.get(key)
            && let Some(integer) = value.get_ref().as_integer()
        {
            return Some(Located { value: integer.to_string(), line });
        }
        self.required_text(key)
    }

    /// A list of tables (`[[key]]`); empty when the key is not there.
    pub fn sections(&self, key: &str, schema: &'static SectionSchema) -> Vec<Section<'t>> {
        self.sections_by(key, schema.title, |_, _| Some(schema))
    }

    /// A list of tables whose keys depend on their `kind`: `schema_of` gets that and the line, and
    /// notes a problem itself when it returns `None`.
    pub fn sections_by(
        &self,
        key: &str,
        header: &str,
        schema_of: impl Fn(Option<&str>, u32) -> Option<&'static SectionSchema>,
    ) -> Vec<Section<'t>> {
        let Some((value, line)) = self.get(key) else { return Vec::new() };
        let open = |item: &'t Spanned<DeValue<'t>>| {
            let line = self.reader.line(item.span().start);
            let Some(table) = item.get_ref().as_table() else {
                return self.wrong_type(key, line, "a list of tables", item.get_ref());
            };
            let kind = table.get("kind").and_then(|kind| kind.get_ref().as_str());
            let schema = schema_of(kind, table.get("kind").map_or(line, |kind| self.reader.line(kind.span().start)))?;
            Some(Section::open(self.reader, table, item.span().start, schema))
        };
        match value.get_ref() {
            DeValue::Array(array) => array.iter().filter_map(open).collect(),
            DeValue::Table(_) => {
                let problem = Problem::error(line, format!("\"{key}\" must be a list of tables, not one table"));
                self.reader.report(problem.hint(format!("write {header}, with two brackets on each side")));
                open(value).into_iter().collect()
            }
            other => {
                self.wrong_type::<()>(key, line, "a list of tables", other);
                Vec::new()
            }
        }
    }
}

fn described(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string \"{text}\""),
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(yes) => format!("the word {yes}"),
        DeValue::Datetime(date) => format!("the date {date}"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
