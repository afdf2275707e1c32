/** Certificates for TLS tests, made anew by each. */
import { type Owner, scratch } from './owner.js'
import { run } from './run.js'

/** A directory with an authority, a certificate of it for this host, and one for `client.example`. */
export async function certificates(t: Owner): Promise<string> {
  const directory = await scratch(t)
  const openssl = (...words: string[]) => run(['openssl', ...words], { cwd: directory })
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2']
  const authority = ['-x509', '-keyout', 'ca-key.pem', '-out', 'ca-cert.pem', '-subj', '/CN=test']
  await openssl('req', ...key, ...authority)
  for (const [who, name] of [
    ['server', 'localhost'],
    ['client', 'client.example'],
  ] as const) {
    const files = ['-keyout', `${who}-key.pem`, '-out', `${who}-cert.pem`]
    const signed = ['-x509', '-CA', 'ca-cert.pem', '-CAkey', 'ca-key.pem', '-subj', `/CN=${name}`]
    const names = ['-addext', `subjectAltName=DNS:${name},IP:127.0.0.1`]
    const leaf = ['-addext', 'basicConstraints=critical,CA:FALSE']
    await openssl('req', ...key, ...files, ...signed, ...names, ...leaf)
  }
  return directory
}
