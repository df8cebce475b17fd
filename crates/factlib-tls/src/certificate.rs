//! Reads from a certificate what rustls does not show: its public key, validity and signature, also
//! of X.509 version 1, which rustls does not parse.

use der::{
    Decode, Reader, SliceReader, Tag, TagNumber,
    asn1::{BitStringRef, GeneralizedTime, ObjectIdentifier, SequenceRef, UtcTime},
};
use rustls::{
    CertificateError, Error,
    pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime},
};
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

/// The parts of a certificate, as slices of its encoding.
pub(crate) struct Certificate<'a> {
    /// The part that the signature covers.
    pub signed: &'a [u8],
    /// The issuer's name without its outer header, as a trust anchor has it.
    pub issuer: &'a [u8],
    validity: &'a [u8],
    pub public_key: SubjectPublicKeyInfoDer<'a>,
    /// The signature's algorithm without its outer header.
    pub signature_algorithm: &'a [u8],
    pub signature: &'a [u8],
}

impl<'a> Certificate<'a> {
    pub fn parse(certificate: &'a CertificateDer<'_>) -> Result<Self, Error> {
        let parsed = parse(certificate.as_ref());
        parsed.map_err(|_| CertificateError::BadEncoding.into())
    }

    pub fn check_validity(&self, now: UnixTime) -> Result<(), CertificateError> {
        let (not_before, not_after) =
            validity(self.validity).map_err(|_| CertificateError::BadEncoding)?;
        if now < not_before {
            return Err(CertificateError::NotValidYetContext { time: now, not_before });
        }
        if now > not_after {
            return Err(CertificateError::ExpiredContext { time: now, not_after });
        }
        Ok(())
    }
}

/// Returns the channel binding data of RFC 5929, section 4: the certificate's hash by the algorithm
/// of its signature, or by SHA-256 if that is MD5 or SHA-1. None for algorithms without a hash of
/// their own, such as Ed25519.
pub fn tls_server_end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let parsed = Certificate::parse(certificate).ok()?;
    let mut algorithm = SliceReader::new(parsed.signature_algorithm).ok()?;
    let algorithm: ObjectIdentifier = algorithm.decode().ok()?;
    Some(match algorithm.to_string().as_str() {
        // md5WithRSA, sha1WithRSA, sha256WithRSA, ecdsa-with-SHA1, ecdsa-with-SHA256
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => Sha256::digest(certificate).to_vec(),
        "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" => Sha224::digest(certificate).to_vec(),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Sha384::digest(certificate).to_vec(),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Sha512::digest(certificate).to_vec(),
        _ => return None,
    })
}

/// Reads the fields of RFC 5280, section 4.1, as far as they are needed.
fn parse(certificate: &[u8]) -> der::Result<Certificate<'_>> {
    let mut reader = SliceReader::new(contents(certificate)?)?;
    let signed = reader.tlv_bytes()?;
    let signature_algorithm = contents(reader.tlv_bytes()?)?;
    let signature: BitStringRef<'_> = reader.decode()?;

    let mut fields = SliceReader::new(contents(signed)?)?;
    let version = Tag::ContextSpecific { constructed: true, number: TagNumber(0) };
    if Tag::peek(&fields)? == version {
        fields.tlv_bytes()?;
    }
    let _serial_number = fields.tlv_bytes()?;
    let _signature_algorithm = fields.tlv_bytes()?;
    let issuer = contents(fields.tlv_bytes()?)?;
    let validity = contents(fields.tlv_bytes()?)?;
    let _subject = fields.tlv_bytes()?;
    let public_key = SubjectPublicKeyInfoDer::from(fields.tlv_bytes()?);
    Ok(Certificate {
        signed,
        issuer,
        validity,
        public_key,
        signature_algorithm,
        signature: signature.as_bytes().ok_or_else(|| der::ErrorKind::Failed.to_error())?,
    })
}

/// Returns the contents of a sequence.
fn contents(sequence: &[u8]) -> der::Result<&[u8]> {
    Ok(<&SequenceRef>::from_der(sequence)?.as_bytes())
}

/// Reads the beginning and the end of a validity period.
fn validity(period: &[u8]) -> der::Result<(UnixTime, UnixTime)> {
    let mut reader = SliceReader::new(period)?;
    let mut time = || -> der::Result<UnixTime> {
        let time = match Tag::peek(&reader)? {
            Tag::UtcTime => reader.decode::<UtcTime>()?.to_unix_duration(),
            _ => reader.decode::<GeneralizedTime>()?.to_unix_duration(),
        };
        Ok(UnixTime::since_unix_epoch(time))
    };
    Ok((time()?, time()?))
}
