"""python -m restore"""

from restore.cli.app import main

main()
