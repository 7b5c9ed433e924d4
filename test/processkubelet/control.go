package processkubelet

import "syscall"

// PID is that of a pod's process; 0 if none runs, or none is played.
func (k *Kubelet) PID(namespace, pod string) int {
	w, err := k.worker(namespace, pod)
	if err != nil {
		return 0
	}
	if p := w.current(); p != nil && p.cmd != nil && !p.ended() {
		return p.cmd.Process.Pid
	}
	return 0
}

// Signal sends a signal to the process of a pod.
func (k *Kubelet) Signal(namespace, pod string, signal syscall.Signal) error {
	w, err := k.worker(namespace, pod)
	if err != nil {
		return err
	}
	if p := w.current(); p != nil {
		p.signal(signal)
	}
	return nil
}

// KillContainer is a crash, or the kernel's OOM killer. It returns when the process is dead; the container is started anew.
func (k *Kubelet) KillContainer(namespace, pod string) error {
	w, err := k.worker(namespace, pod)
	if err != nil {
		return err
	}
	if p := w.current(); p != nil {
		p.kill()
		<-p.done
	}
	return nil
}

// Freeze stops a process without ending it: it keeps its connections and answers nothing.
func (k *Kubelet) Freeze(namespace, pod string) error {
	return k.Signal(namespace, pod, syscall.SIGSTOP)
}

// Thaw lets a frozen process go on.
func (k *Kubelet) Thaw(namespace, pod string) error { return k.Signal(namespace, pod, syscall.SIGCONT) }
