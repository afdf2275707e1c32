/**
 * `dog completion`: scripts that let a shell complete the words of dog, made of the tables dog itself works with. Options of sheep
 * and sheepfs are asked of these programs, names of disks of the cluster (a second at the most).
 */
import type { Context, Noun, Subcommand } from './command.js'
import { Exit } from './failure.js'
import { vdiOption as option } from './options.js'

/** An operand that is the name of a disk, or could be. */
const TAKES_VDI = /^[<[].*vdi/

/** Names of working disks, one a line; those with blanks in them, which raw lists mark by a backslash, are left out. */
const LIST_VDIS = `timeout 1 dog vdi list --raw "$@" </dev/null 2>/dev/null |
    sed -n 's/^[=c] \\([^ ]*[^ \\\\]\\) 0 .*/\\1/p'`
/** Of a commander program's help. */
const LIST_OPTIONS = `--help 2>/dev/null | sed -n 's/^  \\(-[A-Za-z]\\), \\(--[a-z-]*\\).*/\\1 \\2/p; s/^  \\(--[a-z-]*\\).*/\\1/p'`

/** The noun `completion`; `nouns` are those it completes, and it comes to itself. */
export function completionOf(nouns: readonly Noun[]): Noun {
  const script = (shell: string, make: (nouns: readonly Noun[]) => string): Subcommand => ({
    name: shell,
    summary: `print a script that completes these words in ${shell}`,
    options: [option.help],
    synopsis: '',
    run: async ({ out }: Context) => {
      out.text(make([...nouns, completion]))
      return Exit.ok
    },
  })
  const completion: Noun = {
    name: 'completion',
    subcommands: [
      script('bash', bashScript),
      script('zsh', (all) => `autoload -Uz bashcompinit && bashcompinit\n${bashScript(all)}`),
      script('fish', fishScript),
    ],
  }
  return completion
}

function subcommandsOf(nouns: readonly Noun[]): { noun: Noun; sub: Subcommand }[] {
  return nouns.flatMap((noun) => noun.subcommands.map((sub) => ({ noun, sub })))
}

function namesOf({ options }: Subcommand, isWanted: (valued: boolean) => boolean): string[] {
  const wanted = options.filter(({ valued }) => isWanted(valued === true))
  return wanted.flatMap(({ letter, long }) => [...(letter ? [`-${letter}`] : []), `--${long}`])
}

/** Where a disk is named: behind the command, or behind its third word. */
function vdiPlaces({ synopsis, words }: Subcommand): string[] {
  if (words === undefined) return TAKES_VDI.test(synopsis) ? [''] : []
  const places = words.filter((word) => TAKES_VDI.test(word.synopsis) || word.needsOperand)
  return places.map(({ name }) => name)
}

/** Also for zsh's bashcompinit, so nothing that only bash has. */
function bashScript(nouns: readonly Noun[]): string {
  const cases = subcommandsOf(nouns).map(({ noun, sub }) => {
    const flags = namesOf(sub, () => true).join(' ')
    const valued = namesOf(sub, (isValued) => isValued).join(' ')
    const words = (sub.words ?? []).map(({ name }) => name).join(' ')
    const vdis = vdiPlaces(sub)
      .map((place) => `:${place}:`)
      .join('')
    return `    '${noun.name} ${sub.name}') flags='${flags}' valued=' ${valued} ' words='${words}' vdis='${vdis}' ;;`
  })
  const seconds = nouns.map(
    ({ name, subcommands }) =>
      `    ${name}) words='${subcommands.map((sub) => sub.name).join(' ')}' ;;`,
  )
  return `# Completion of sheep, dog and sheepfs, printed by 'dog completion'.
_sheepdog_vdis() {
  ${LIST_VDIS}
}
_sheepdog_dog() {
  local cur="\${COMP_WORDS[COMP_CWORD]}" noun="\${COMP_WORDS[1]}" sub="\${COMP_WORDS[2]}"
  local flags='' valued='' words='' vdis='' word='' third='' from='' i
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W '${nouns.map(({ name }) => name).join(' ')}' -- "$cur"))
    return
  fi
  if [ "$COMP_CWORD" -eq 2 ]; then
    case "$noun" in
${seconds.join('\n')}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
    return
  fi
  case "$noun $sub" in
${cases.join('\n')}
    *) return ;;
  esac
  i=3
  while [ "$i" -lt "$COMP_CWORD" ]; do
    word="\${COMP_WORDS[i]}"
    case "$valued" in
      *" $word "*)
        i=$((i + 1))
        # The value of an option: names of files are what the shell then offers.
        [ "$i" -eq "$COMP_CWORD" ] && return
        case "$word" in -a | --address | -p | --port) from="$from $word \${COMP_WORDS[i]}" ;; esac ;;
      *) case "$word" in -*) ;; *) [ -n "$third" ] || third="$word" ;; esac ;;
    esac
    i=$((i + 1))
  done
  case "$cur" in
    -*) COMPREPLY=($(compgen -W "$flags" -- "$cur")) ; return ;;
  esac
  if [ -n "$words" ] && [ -z "$third" ]; then
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
    return
  fi
  [ -n "$words" ] || third=''
  case "$vdis" in
    *":$third:"*) COMPREPLY=($(compgen -W "$(_sheepdog_vdis $from)" -- "$cur")) ;;
  esac
}
_sheepdog_help() {
  COMPREPLY=()
  case "\${COMP_WORDS[COMP_CWORD]}" in
    -*) COMPREPLY=($(compgen -W "$("\${COMP_WORDS[0]}" ${LIST_OPTIONS})" -- "\${COMP_WORDS[COMP_CWORD]}")) ;;
  esac
}
complete -o default -F _sheepdog_dog dog
complete -o default -F _sheepdog_help sheep
complete -o default -F _sheepdog_help sheepfs
`
}

/** In single quotes of fish. */
function quoted(text: string): string {
  return `'${text.replace(/\s+/g, ' ').replace(/[\\']/g, '\\$&')}'`
}

function fishScript(nouns: readonly Noun[]): string {
  const lines = nouns.map(({ name }) => `complete -c dog -f -n '__sheepdog_words 1' -a ${name}`)
  for (const { noun, sub } of subcommandsOf(nouns)) {
    const at = `complete -c dog -n '__sheepdog_in ${noun.name} ${sub.name}'`
    const summary = quoted(sub.summary)
    lines.push(
      `complete -c dog -f -n '__sheepdog_words 2; and __sheepdog_in ${noun.name}' -a ${sub.name} -d ${summary}`,
    )
    for (const { letter, long, valued, help } of sub.options) {
      const short = letter === undefined ? '' : ` -s ${letter}`
      lines.push(`${at}${short} -l ${long}${valued ? ' -r' : ''} -d ${quoted(help)}`)
    }
    for (const { name, summary: text } of sub.words ?? []) {
      lines.push(`${at} -f -a ${name} -d ${quoted(text)}`)
    }
    const files = sub.synopsis.includes('file') ? '' : ' -f'
    if (vdiPlaces(sub).length > 0) lines.push(`${at}${files} -a '(__sheepdog_vdis)'`)
  }
  return `# Completion of sheep, dog and sheepfs, printed by 'dog completion'.
function __sheepdog_words
  test (count (commandline -opc)) -eq $argv[1]
end
function __sheepdog_in
  set -l words (commandline -opc)
  test (count $words) -gt (count $argv); and test "$words[2..$(math (count $argv) + 1)]" = "$argv"
end
function __sheepdog_vdis
  set -l argv
  set -l words (commandline -opc)
  for i in (seq 4 (math (count $words) - 1))
    contains -- $words[$i] -a --address -p --port; and set -a argv $words[$i] $words[(math $i + 1)]
  end
  ${LIST_VDIS.replace('"$@"', '$argv')}
end
function __sheepdog_options
  $argv[1] ${LIST_OPTIONS} | string split ' '
end
${lines.join('\n')}
for program in sheep sheepfs
  complete -c $program -n 'string match -q -- "-*" (commandline -ct)' -a "(__sheepdog_options $program)"
end
`
}
