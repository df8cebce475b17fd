//! Turns a JSON text into a struct, with a schema that is inferred from it, as Debezium's outbox
//! event router does with `table.expand.json.payload`.

use indexmap::{IndexMap, map::Entry};

use super::{
    document::{self, Node},
    schema::{Kind, Schema, Value},
};

/// Treatment of what has no type of its own in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Expansion {
    /// Keeps null fields, as optional bytes; otherwise they are left out.
    pub keeps_nulls: bool,
    /// Keeps empty arrays, as lists of optional texts; otherwise they are left out.
    pub keeps_empty_arrays: bool,
}

impl Expansion {
    /// Expands a text that is a JSON object. None if it is not, or if it can't be a struct: it has
    /// an array of values of several types, for example.
    ///
    /// # Errors
    /// [`TooLarge`] for a text that grows too much.
    pub fn expand(self, name: &str, text: &str) -> Result<Option<(Schema, Value)>, TooLarge> {
        if !text.starts_with('{') {
            return Ok(None);
        }
        let Some(node) = document::parse(text) else { return Ok(None) };
        let mut expander = Expander { expansion: self, left: MAX_EXPANDED_BYTES };
        let expanded = expander.schema(Some(name), &node).and_then(|schema| {
            let schema = schema.ok_or(NotExpanded::NoSchema)?;
            let value = expander.value(&node, &schema)?;
            Ok((schema, value))
        });
        match expanded {
            Ok(expanded) => Ok(Some(expanded)),
            Err(NotExpanded::NoSchema) => Ok(None),
            Err(NotExpanded::TooLarge) => Err(TooLarge),
        }
    }
}

/// Most bytes of names and values that a text may grow to: each object of an array gets all fields
/// that any of them has. No topic takes a record of that size by default.
const MAX_EXPANDED_BYTES: usize = 16 << 20;

/// Least bytes of a field beside its name: quotes, colon, comma and a value.
const FIELD_BYTES: usize = 8;

/// A text that grows too much when it is expanded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// The reason why a text is not expanded.
enum NotExpanded {
    /// It has a value that its schema can't describe, or an array whose items have no common schema.
    NoSchema,
    TooLarge,
}

/// Expands one text.
struct Expander {
    expansion: Expansion,
    /// Bytes that may still be added.
    left: usize,
}

impl Expander {
    fn spend(&mut self, bytes: usize) -> Result<(), NotExpanded> {
        self.left = self.left.checked_sub(bytes).ok_or(NotExpanded::TooLarge)?;
        Ok(())
    }

    /// Infers the schema of a value. None if it has none and is left out.
    fn schema(&mut self, name: Option<&str>, node: &Node) -> Result<Option<Schema>, NotExpanded> {
        let Expansion { keeps_nulls, keeps_empty_arrays } = self.expansion;
        let kind = match node {
            Node::Null if keeps_nulls => Kind::Bytes,
            Node::Null => return Ok(None),
            Node::Bool(_) => Kind::Boolean,
            Node::Int(_) => Kind::Int32,
            Node::Long(_) => Kind::Int64,
            Node::Double(_) | Node::Big => Kind::Float64,
            Node::Text(_) => Kind::String,
            Node::Array(items) if items.is_empty() => match keeps_empty_arrays {
                true => Kind::Array(Box::new(Schema::optional(Kind::String))),
                false => return Ok(None),
            },
            Node::Array(items) => Kind::Array(Box::new(self.schema_of_items(name, items)?)),
            Node::Object(fields) => {
                let mut known: Vec<(String, Schema)> = Vec::with_capacity(fields.len());
                for (field, node) in fields {
                    let path = match name.filter(|name| !name.trim().is_empty()) {
                        Some(name) => format!("{name}.{field}"),
                        None => field.clone(),
                    };
                    self.spend(path.len())?;
                    if let Some(schema) = self.schema(Some(&path), node)? {
                        known.push((field.clone(), schema));
                    }
                }
                let schema = Schema::optional(Kind::Struct(known));
                return Ok(Some(Schema { name: name.map(str::to_owned), ..schema }));
            }
        };
        Ok(Some(Schema::optional(kind)))
    }

    /// Infers the schema of an array's items, which have to be of one type. Objects may have
    /// different fields.
    fn schema_of_items(
        &mut self,
        name: Option<&str>,
        items: &[Node],
    ) -> Result<Schema, NotExpanded> {
        let mut present = items.iter().filter(|item| **item != Node::Null);
        let first = present.clone().next().unwrap_or(&Node::Null);
        if present.any(|item| !is_of_one_type(first, item)) {
            return Err(NotExpanded::NoSchema);
        }
        if !matches!(first, Node::Object(_)) {
            return self.schema(None, first)?.ok_or(NotExpanded::NoSchema);
        }
        let (mut merged, mut is_any) = (IndexMap::new(), false);
        for item in items.iter().filter(|item| matches!(item, Node::Object(_))) {
            let Some(Schema { kind: Kind::Struct(fields), .. }) = self.schema(name, item)? else {
                continue;
            };
            is_any = true;
            fields.into_iter().for_each(|(name, schema)| merge(&mut merged, name, schema));
        }
        if !is_any {
            return Err(NotExpanded::NoSchema);
        }
        let schema = Schema::optional(Kind::Struct(merged.into_iter().collect()));
        Ok(Schema { name: name.map(str::to_owned), ..schema })
    }

    /// Converts a value by its schema.
    fn value(&mut self, node: &Node, schema: &Schema) -> Result<Value, NotExpanded> {
        Ok(match (node, &schema.kind) {
            (Node::Null, _) => Value::Null,
            (Node::Bool(value), Kind::Boolean) => Value::Boolean(*value),
            (Node::Int(number), Kind::Int32) => Value::Int((*number).into()),
            (Node::Long(number), Kind::Int64) => Value::Int(*number),
            (Node::Double(number), Kind::Float64) => Value::Float64(*number),
            (Node::Text(text), Kind::String) => Value::Text(text.clone().into()),
            (Node::Array(items), Kind::Array(of)) => {
                let values = items.iter().map(|item| self.value(item, of));
                Value::Array(values.collect::<Result<_, _>>()?)
            }
            (Node::Object(given), Kind::Struct(fields)) => {
                let of = |(name, schema): &(String, Schema)| {
                    self.spend(name.len() + FIELD_BYTES)?;
                    given.get(name).map_or(Ok(Value::Null), |node| self.value(node, schema))
                };
                Value::Struct(fields.iter().map(of).collect::<Result<_, _>>()?)
            }
            _ => return Err(NotExpanded::NoSchema),
        })
    }
}

fn is_of_one_type(one: &Node, other: &Node) -> bool {
    match (one, other) {
        (Node::Double(_) | Node::Big, Node::Double(_) | Node::Big) => true,
        _ => std::mem::discriminant(one) == std::mem::discriminant(other),
    }
}

/// Adds a field. Of two types of a field the first counts, unless it is that of a null.
fn merge(fields: &mut IndexMap<String, Schema>, name: String, schema: Schema) {
    match fields.entry(name) {
        Entry::Vacant(vacant) => drop(vacant.insert(schema)),
        Entry::Occupied(mut known) => {
            if known.get().kind == Kind::Bytes && schema.kind != Kind::Bytes {
                known.insert(schema);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::json::write_value, *};

    fn expanded(expansion: Expansion, text: &str) -> Option<String> {
        let (schema, value) = expansion.expand("payload", text).expect("not too large")?;
        let mut to = String::new();
        write_value(&mut to, &schema, &value);
        Some(to)
    }

    #[test]
    fn a_struct_has_the_fields_that_have_a_type() {
        for (text, expected) in [
            (r#"{"b": 1, "a": {"x": null, "y": "z"}}"#, r#"{"b":1,"a":{"y":"z"}}"#),
            (r#"{"l": [], "m": [1, null, 2], "n": {}}"#, r#"{"m":[1,null,2],"n":{}}"#),
            (
                r#"{"l": [{"a": 1}, {"b": true}]}"#,
                r#"{"l":[{"a":1,"b":null},{"a":null,"b":true}]}"#,
            ),
            (r#"{"d": 1e2, "l": 12345678901}"#, r#"{"d":100.0,"l":12345678901}"#),
            (r#"{"l": [[1], [2, 3]]}"#, r#"{"l":[[1],[2,3]]}"#),
        ] {
            assert_eq!(expanded(Expansion::default(), text).as_deref(), Some(expected));
        }
    }

    #[test]
    fn nulls_and_empty_arrays_are_kept_on_demand() {
        let expansion = Expansion { keeps_nulls: true, keeps_empty_arrays: true };
        let text = r#"{"a":null,"l":[],"n":[null]}"#;
        assert_eq!(expanded(expansion, text).as_deref(), Some(text));
    }

    #[test]
    fn what_can_t_be_a_struct_is_left_as_it_is() {
        for text in [
            "",
            "[1]",
            "text",
            " {}",
            "{",
            r#"{"l": [1, "a"]}"#,
            r#"{"l": [1, 3000000000]}"#,
            r#"{"l": [null]}"#,
            r#"{"l": [[]]}"#,
            r#"{"n": 99999999999999999999}"#,
            r#"{"l": [{"a": 1}, {"a": "x"}]}"#,
        ] {
            assert_eq!(expanded(Expansion::default(), text), None, "{text}");
        }
    }

    #[test]
    fn a_text_that_grows_too_much_is_refused() {
        // Each object gets the fields of all others: 25 million of them.
        let objects: Vec<_> = (0..5_000).map(|n| format!("{{\"k{n}\":1}}")).collect();
        let array = format!("{{\"l\":[{}]}}", objects.join(","));
        // The name of each level has those of all levels above it.
        let name = "n".repeat(100);
        let deep = format!("{{\"{name}\":").repeat(900) + "1" + &"}".repeat(900);
        for text in [&array, &deep] {
            assert_eq!(Expansion::default().expand("p", text), Err(TooLarge));
        }
        let fields: Vec<_> = (0..100_000).map(|n| format!("\"k{n}\":1")).collect();
        let wide = format!("{{{}}}", fields.join(","));
        assert_eq!(expanded(Expansion::default(), &wide), Some(wide));
    }
}
