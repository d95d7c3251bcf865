"""What is the user's to mend, told apart from what is ours."""


class UserError(ValueError):
  """A mistake that the user can mend: its text names the field, the value and the remedy.

  Commands print the text and end with code 2. Every other exception is a bug, and keeps its
  traceback.
  """
