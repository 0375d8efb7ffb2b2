"""What a network's widths are, how they are cut, and what they cost.

`group` and `graph` say which slices of which parameters live or die together, `plan` which of them
stay, `surgery` cuts them out, `importance` adds up how much each matters, and `widths` and `costs`
count what is left. Stages exchange these types; nothing here knows a stage, a disk or a terminal.
"""
