//! Generates the Rust code of the event's schema.
//!
//! It is prost's code with its derive written out: a service that depends on `factlib-emit` then
//! compiles neither prost-derive nor syn. It knows only the kinds of fields that the schema has.

use std::{fmt::Write as _, path::Path};

use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, field_descriptor_proto::Type,
};

const HEAD: &str = "\
// Generated from proto/factlib/v1/outbox.proto by `make proto`: do not edit.

use std::collections::BTreeMap;

use prost::{
    DecodeError, Message,
    bytes::{Buf, BufMut, Bytes},
    encoding::{self, DecodeContext, WireType},
};
";

/// The code of the first file in `folder`, which has to be a schema of messages alone.
pub fn code(schema: &Path, folder: &Path) -> String {
    let files = protox::compile([schema], [folder]).expect("a valid schema");
    let file = files.file.first().expect("a file");
    let mut code = HEAD.to_owned();
    for (number, message) in file.message_type.iter().enumerate() {
        Generator { file, path: vec![4, number as i32], message }.write(&mut code);
    }
    code
}

struct Generator<'a> {
    file: &'a FileDescriptorProto,
    /// The message's place in the file, as comments are addressed.
    path: Vec<i32>,
    message: &'a DescriptorProto,
}

/// A field, with the code that prost's derive makes of its kind.
struct Field<'a> {
    name: &'a str,
    rust_type: String,
    /// Statements with `self.name` in place.
    encode: String,
    merge: String,
    length: String,
}

impl Generator<'_> {
    fn write(&self, code: &mut String) {
        let name = self.message.name();
        let fields: Vec<_> = self.message.field.iter().map(|field| self.field(field)).collect();
        let mut members = String::new();
        for (number, field) in fields.iter().enumerate() {
            members += &self.comment(&[2, number as i32], "    ");
            members += &format!("    pub {}: {},\n", field.name, field.rust_type);
        }
        let lines = |indent: &str, of: fn(&Field) -> String| -> String {
            fields.iter().map(|field| format!("{indent}{}\n", of(field))).collect()
        };
        let encode = lines("        ", |field| field.encode.clone());
        let merge = lines("            ", |field| field.merge.clone());
        let length = lines("        ", |field| field.length.clone());
        let comment = self.comment(&[], "");
        write!(
            code,
            "
{comment}#[derive(Clone, Debug, Default, PartialEq)]
pub struct {name} {{
{members}}}

impl Message for {name} {{
    fn encode_raw(&self, buf: &mut impl BufMut) {{
{encode}    }}

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {{
        let (merged, field) = match tag {{
{merge}            _ => return encoding::skip_field(wire_type, tag, buf, ctx),
        }};
        merged.map_err(|mut error| {{
            error.push(\"{name}\", field);
            error
        }})
    }}

    fn encoded_len(&self) -> usize {{
        let mut length = 0;
{length}        length
    }}

    fn clear(&mut self) {{
        *self = Self::default();
    }}
}}
"
        )
        .expect("a String takes all");
    }

    fn field<'a>(&self, field: &'a FieldDescriptorProto) -> Field<'a> {
        let (name, tag) = (field.name(), field.number());
        let merge = |call: &str| {
            format!(
                "{tag} => (\n                {call},\n                \"{name}\",\n            ),"
            )
        };
        // A value of its own, which is left out where it is the default.
        let plain = |rust_type: &str, module: &str, is_set: String| Field {
            name,
            rust_type: rust_type.to_owned(),
            encode: format!(
                "if {is_set} {{\n            encoding::{module}::encode({tag}, &self.{name}, buf);\n        }}"
            ),
            merge: merge(&format!(
                "encoding::{module}::merge(wire_type, &mut self.{name}, buf, ctx)"
            )),
            length: format!(
                "if {is_set} {{\n            length += encoding::{module}::encoded_len({tag}, &self.{name});\n        }}"
            ),
        };
        match field.r#type() {
            Type::String => plain("String", "string", format!("!self.{name}.is_empty()")),
            Type::Bytes => plain("Bytes", "bytes", format!("!self.{name}.is_empty()")),
            Type::Int64 => plain("i64", "int64", format!("self.{name} != 0")),
            Type::Message if self.is_map_of_texts(field) => {
                let text = |function: &str| format!("encoding::string::{function}");
                let (encode, length, merge_text) =
                    (text("encode"), text("encoded_len"), text("merge"));
                Field {
                    name,
                    rust_type: "BTreeMap<String, String>".into(),
                    encode: format!(
                        "encoding::btree_map::encode(\n            {encode},\n            {length},\n            {encode},\n            {length},\n            {tag},\n            &self.{name},\n            buf,\n        );"
                    ),
                    merge: merge(&format!(
                        "encoding::btree_map::merge(\n                    {merge_text},\n                    {merge_text},\n                    &mut self.{name},\n                    buf,\n                    ctx,\n                )"
                    )),
                    length: format!(
                        "length += encoding::btree_map::encoded_len(\n            {length},\n            {length},\n            {tag},\n            &self.{name},\n        );"
                    ),
                }
            }
            Type::Message => {
                let message = field.type_name().rsplit('.').next().expect("a name");
                Field {
                    name,
                    rust_type: format!("Option<{message}>"),
                    encode: format!(
                        "if let Some(message) = &self.{name} {{\n            encoding::message::encode({tag}, message, buf);\n        }}"
                    ),
                    merge: merge(&format!(
                        "encoding::message::merge(\n                    wire_type,\n                    self.{name}.get_or_insert_default(),\n                    buf,\n                    ctx,\n                )"
                    )),
                    length: format!(
                        "if let Some(message) = &self.{name} {{\n            length += encoding::message::encoded_len({tag}, message);\n        }}"
                    ),
                }
            }
            other => panic!("the generator has no code for {name}, a {other:?}: add it"),
        }
    }

    fn is_map_of_texts(&self, field: &FieldDescriptorProto) -> bool {
        let entry = field.type_name().rsplit('.').next();
        self.message.nested_type.iter().any(|nested| {
            let is_map = nested.options.as_ref().is_some_and(|options| options.map_entry());
            let is_text = |field: &FieldDescriptorProto| field.r#type() == Type::String;
            Some(nested.name()) == entry && is_map && nested.field.iter().all(is_text)
        })
    }

    /// The schema's comment above the message, or above what is at `below` in it.
    fn comment(&self, below: &[i32], indent: &str) -> String {
        let path = [&self.path, below].concat();
        let places = self.file.source_code_info.iter().flat_map(|info| &info.location);
        let comment = places.filter(|place| place.path == path).find_map(|place| {
            Some(
                place.leading_comments.as_ref()?.lines().map(|line| format!("{indent}///{line}\n")),
            )
        });
        comment.into_iter().flatten().collect()
    }
}
