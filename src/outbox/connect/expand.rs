//! Turns a JSON text into a struct, with a schema that is inferred from it, as Debezium's outbox
//! event router does with `table.expand.json.payload`.

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
    pub fn expand(self, name: &str, text: &str) -> Option<(Schema, Value)> {
        if !text.starts_with('{') {
            return None;
        }
        let node = document::parse(text)?;
        let schema = self.schema(Some(name), &node).ok()??;
        let value = value(&node, &schema)?;
        Some((schema, value))
    }

    /// Infers the schema of a value. None if it has none and is left out.
    fn schema(self, name: Option<&str>, node: &Node) -> Result<Option<Schema>, NoSchema> {
        let kind = match node {
            Node::Null if self.keeps_nulls => Kind::Bytes,
            Node::Null => return Ok(None),
            Node::Bool(_) => Kind::Boolean,
            Node::Int(_) => Kind::Int32,
            Node::Long(_) => Kind::Int64,
            Node::Double(_) | Node::Big => Kind::Float64,
            Node::Text(_) => Kind::String,
            Node::Array(items) if items.is_empty() => match self.keeps_empty_arrays {
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
    fn schema_of_items(self, name: Option<&str>, items: &[Node]) -> Result<Schema, NoSchema> {
        let mut present = items.iter().filter(|item| **item != Node::Null);
        let first = present.clone().next().unwrap_or(&Node::Null);
        if present.any(|item| !is_of_one_type(first, item)) {
            return Err(NoSchema);
        }
        if !matches!(first, Node::Object(_)) {
            return self.schema(None, first)?.ok_or(NoSchema);
        }
        let mut merged: Option<Schema> = None;
        for item in items.iter().filter(|item| matches!(item, Node::Object(_))) {
            let Some(schema) = self.schema(name, item)? else { continue };
            match &mut merged {
                None => merged = Some(schema),
                Some(merged) => merge(merged, schema),
            }
        }
        merged.ok_or(NoSchema)
    }
}

/// An array whose items have no common schema.
struct NoSchema;

fn is_of_one_type(one: &Node, other: &Node) -> bool {
    match (one, other) {
        (Node::Double(_) | Node::Big, Node::Double(_) | Node::Big) => true,
        _ => std::mem::discriminant(one) == std::mem::discriminant(other),
    }
}

/// Adds the fields that a schema lacks. Of two types of a field the first counts, unless it is that
/// of a null.
fn merge(into: &mut Schema, from: Schema) {
    let (Kind::Struct(fields), Kind::Struct(others)) = (&mut into.kind, from.kind) else { return };
    for (name, schema) in others {
        match fields.iter_mut().find(|(other, _)| *other == name) {
            None => fields.push((name, schema)),
            Some((_, known)) if known.kind == Kind::Bytes && schema.kind != Kind::Bytes => {
                *known = schema;
            }
            Some(_) => {}
        }
    }
}

/// Converts a value by its schema. None if it is of another type.
fn value(node: &Node, schema: &Schema) -> Option<Value> {
    Some(match (node, &schema.kind) {
        (Node::Null, _) => Value::Null,
        (Node::Bool(value), Kind::Boolean) => Value::Boolean(*value),
        (Node::Int(number), Kind::Int32) => Value::Int((*number).into()),
        (Node::Long(number), Kind::Int64) => Value::Int(*number),
        (Node::Double(number), Kind::Float64) => Value::Float64(*number),
        (Node::Text(text), Kind::String) => Value::Text(text.clone().into()),
        (Node::Array(items), Kind::Array(of)) => {
            Value::Array(items.iter().map(|item| value(item, of)).collect::<Option<_>>()?)
        }
        (Node::Object(given), Kind::Struct(fields)) => {
            let of = |(name, schema): &(String, Schema)| {
                let found = given.iter().find(|(other, _)| other == name);
                found.map_or(Some(Value::Null), |(_, node)| value(node, schema))
            };
            Value::Struct(fields.iter().map(of).collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{super::json::write_value, *};

    fn expanded(expansion: Expansion, text: &str) -> Option<String> {
        let (schema, value) = expansion.expand("payload", text)?;
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
}
