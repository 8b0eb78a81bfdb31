# ~/.bashrc: read by interactive shells
[ -z "$PS1" ] && return
PS1='\w\$ '
HISTSIZE=1000
HISTCONTROL=ignoredups
alias ls='ls --color=auto' grep='grep --color=auto' ll='ls -l'
