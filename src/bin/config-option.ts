/** `--config FILE`: where the configuration file is, and how it and the command line go together. */
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import type { Command, Option } from 'commander'
import type { TargetRules } from '../doors/iscsi/target-rules.js'
import type { ExportRules } from '../doors/nbd/export-rules.js'
import { type ConfigFile, type Keys, readConfigFile } from './config-file.js'

export const CONFIG_DEFAULT = '/etc/sheepdog/sheep.toml'

/** As commander hands them over: `false` is --no-config. */
export interface ConfigGiven {
  config?: string | false
  checkConfig?: boolean
}

/** The file a daemon was started with. */
export interface UsedConfig {
  readonly path: string
  /**
   * Reads it anew; only the rules count while the daemon runs. `changed`: keys that differ from what it was started with.
   * Throws an Error for people.
   */
  reread(): {
    readonly rules: ExportRules
    readonly targets: TargetRules
    readonly changed: readonly string[]
  }
}

export interface WithConfig {
  readonly file: ConfigFile | undefined
  readonly used: UsedConfig | undefined
}

export function addConfigOptions(program: Command): Command {
  return program
    .option(
      '--config <file>',
      `configuration in TOML, every long option a key (default: ${CONFIG_DEFAULT}, when it is there)`,
    )
    .option('--no-config', 'read no configuration file')
    .option('--check-config', 'look whether options and configuration file are right, and end')
}

/**
 * Adds to a parsed command line what only the file says; what is on the command line wins. Throws an Error for people.
 */
export function withConfigFile(
  program: Command,
  notServed: ReadonlyMap<string, string>,
): WithConfig {
  const { config, checkConfig } = program.opts<ConfigGiven>()
  const isNamed = typeof config === 'string'
  const isThere = isNamed || (config !== false && existsSync(CONFIG_DEFAULT))
  if (!isThere) {
    if (checkConfig === true && config !== false) {
      throw new Error(`there is no ${CONFIG_DEFAULT}: name a file with --config`)
    }
    return { file: undefined, used: undefined }
  }
  const path = resolve(isNamed ? config : CONFIG_DEFAULT)
  const keys: Keys = { options: program.options, notServed }
  const file = readConfigFile(path, keys)
  for (const { option, value } of file.settings) apply(program, option, value)
  const reread = (): ReturnType<UsedConfig['reread']> => {
    const next = readConfigFile(path, keys)
    return { rules: next.rules, targets: next.targets, changed: changedKeys(file, next) }
  }
  return { file, used: { path, reread } }
}

function apply(program: Command, option: Option, value: unknown): void {
  const name = option.attributeName()
  if (program.getOptionValueSource(name) === 'cli' || value === undefined) return
  program.setOptionValueWithSource(name, value, 'config')
}

function changedKeys(before: ConfigFile, now: ConfigFile): string[] {
  const [old, next] = [wordsByKey(before), wordsByKey(now)]
  return [...new Set([...old.keys(), ...next.keys()])].filter(
    (key) => old.get(key) !== next.get(key),
  )
}

function wordsByKey({ settings, store }: ConfigFile): ReadonlyMap<string, string> {
  const words = new Map(
    settings.map(({ option, words }) => [option.long?.slice(2) ?? '', JSON.stringify(words)]),
  )
  if (store !== undefined) words.set('path', store)
  return words
}
