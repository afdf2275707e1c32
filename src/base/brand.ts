declare const brand: unique symbol

/** A primitive that must not be mixed up with its look-alikes. */
export type Brand<Base, Name extends string> = Base & { readonly [brand]: Name }
